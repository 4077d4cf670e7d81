//! Package sources of apt: reads the ones a system has, and derives the backports suite from the same mirror.
//!
//! Both formats of sources.list(5) are read. No mirror is named here: the one in use has what we need, and it is
//! the one that the system's owner chose.

/// One source of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// Path or inline key, as written.
    signed_by: Option<String>,
}

/// How to reach the backports suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backports {
    /// It is configured already.
    Configured,
    /// This text in a `.sources` file adds it.
    Derived(String),
    /// No source of the release itself was found.
    Unknown,
}

/// Reads the one-line format (`*.list`).
#[must_use]
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    rest = rest.trim_start();
    let mut source = Source::default();
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (options, after) = bracketed.split_once(']')?;
        let signed = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        source.signed_by = signed.map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uris = vec![words.next()?];
    source.suites = vec![words.next()?];
    source.components = words.collect();
    Some(source)
}

/// Reads the deb822 format (`*.sources`).
#[must_use]
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    kept.split(|line| line.trim().is_empty()).filter_map(parse_stanza).collect()
}

fn parse_stanza(lines: &[&str]) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':')?;
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let off = field("enabled").is_some_and(|value| matches!(value.as_str(), "no" | "false" | "off" | "0"));
    if off || !words("types").iter().any(|word| word == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by"),
    })
}

/// How to reach the backports of the release `codename`, given the sources in use.
#[must_use]
pub fn backports(sources: &[Source], codename: &str) -> Backports {
    let suite = format!("{codename}-backports");
    if sources.iter().any(|source| source.suites.contains(&suite)) {
        return Backports::Configured;
    }
    let usable = |source: &&Source| {
        source.suites.iter().any(|name| name == codename)
            && source.components.iter().any(|name| name == "main")
            && source.uris.iter().any(|uri| is_remote(uri))
    };
    let Some(source) = sources.iter().find(usable) else { return Backports::Unknown };
    let uris: Vec<&str> = source.uris.iter().map(String::as_str).filter(|uri| is_remote(uri)).collect();
    let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", uris.join(" "));
    if let Some(key) = &source.signed_by {
        text.push_str(&format!("Signed-By: {key}\n"));
    }
    Backports::Derived(text)
}

fn is_remote(uri: &str) -> bool {
    !uri.starts_with("cdrom:")
}

/// The newest version that a suite ending in `-backports` and any other suite offer, from `apt-cache madison`.
#[must_use]
pub fn offered(madison: &str) -> (Option<String>, Option<String>) {
    let (mut backports, mut plain) = (None, None);
    for line in madison.lines() {
        let mut columns = line.split('|').map(str::trim).skip(1);
        let (Some(version), Some(place)) = (columns.next(), columns.next()) else { continue };
        // The first line of each kind is the newest: apt-cache sorts by version.
        let slot = if place.contains("-backports/") { &mut backports } else { &mut plain };
        slot.get_or_insert_with(|| version.to_owned());
    }
    (backports, plain)
}

/// The code name in an os-release file.
#[must_use]
pub fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let name = value.trim().trim_matches('"');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Backports, backports, codename, offered, parse_deb822, parse_list};

    const LIST: &str = "# deb http://old.example.org/debian moss main\n\
        deb cdrom:[Debian moss]/ moss main\n\
        deb-src http://mirror.example.org/debian moss main\n\
        deb [arch=amd64 signed-by=/keys/a.gpg] http://mirror.example.org/debian moss main contrib # comment\n\
        deb http://security.example.org/debian-security moss-security main\n";

    const STANZAS: &str = "# a comment\nTypes: deb deb-src\nURIs: https://mirror.example.org/debian\n\
        # another\nSuites: moss moss-updates\nComponents: main\nSigned-By:\n -----BEGIN KEY-----\n .\n abc\n\n\
        Enabled: no\nTypes: deb\nURIs: https://mirror.example.org/debian\nSuites: moss-backports\nComponents: main\n\n\
        Types: deb\nURIs: https://tools.example.org/apt\nSuites: ./\n";

    #[test]
    fn one_line_sources() {
        let text = match backports(&parse_list(LIST), "moss") {
            Backports::Derived(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            text,
            "Types: deb\nURIs: http://mirror.example.org/debian\nSuites: moss-backports\nComponents: main\n\
             Signed-By: /keys/a.gpg\n"
        );
    }

    #[test]
    fn deb822_sources() {
        let sources = parse_deb822(STANZAS);
        assert_eq!(sources.len(), 2);
        let Backports::Derived(text) = backports(&sources, "moss") else { panic!("not derived") };
        assert_eq!(
            text,
            "Types: deb\nURIs: https://mirror.example.org/debian\nSuites: moss-backports\nComponents: main\n\
             Signed-By: \n -----BEGIN KEY-----\n .\n abc\n"
        );
        assert_eq!(backports(&parse_deb822(&text), "moss"), Backports::Configured);
    }

    #[test]
    fn nothing_to_derive_from() {
        assert_eq!(backports(&parse_list(LIST), "fern"), Backports::Unknown);
        assert_eq!(backports(&parse_list("deb cdrom:[x]/ moss main\n"), "moss"), Backports::Unknown);
        assert_eq!(
            backports(&parse_list("deb http://m.example.org/d moss contrib\n"), "moss"),
            Backports::Unknown
        );
        assert_eq!(backports(&parse_list("debug on\ndeb\ndeb x\n"), "moss"), Backports::Unknown);
        assert_eq!(backports(&[], "moss"), Backports::Unknown);
    }

    #[test]
    fn configured_is_left_alone() {
        let list = format!("{LIST}deb http://mirror.example.org/debian moss-backports main\n");
        assert_eq!(backports(&parse_list(&list), "moss"), Backports::Configured);
    }

    #[test]
    fn versions_on_offer() {
        let text = " qemu | 1:10.0.2~bpo | http://mirror.example.org/debian moss-backports/main amd64 Packages\n \
                    qemu | 1:7.2+dfsg-7 | http://mirror.example.org/debian moss/main amd64 Packages\n \
                    qemu | 1:7.2+dfsg-6 | http://mirror.example.org/debian moss/main amd64 Packages\n";
        assert_eq!(offered(text), (Some("1:10.0.2~bpo".into()), Some("1:7.2+dfsg-7".into())));
        assert_eq!(offered("N: Unable to locate package qemu\n"), (None, None));
    }

    #[test]
    fn code_names() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=moss\n"), Some("moss".into()));
        assert_eq!(codename("VERSION_CODENAME=\"fern\"\n"), Some("fern".into()));
        assert_eq!(codename("ID=arch\nVERSION_CODENAME=\n"), None);
    }
}
