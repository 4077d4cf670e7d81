//! The serial stream: what was sent comes out, and damage is reported and stays where it is.

use perf::bench::Unit;
use perf::record::{
    Corrupt, Demux, Done, EncodeError, Encoder, Event, MAX_FRAME, MAX_PAYLOAD, Metric, Owned, Record,
    TestStart, TraceChunk,
};
use perf::trace::TraceRecord;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

/// An event that owns what it shows.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Text(String),
    Frame(u32, Owned),
    Gap(u32, u32),
    Corrupt(u64, Corrupt),
}

fn decode(pieces: &[&[u8]]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut report = |event: Event<'_>| {
        seen.push(match event {
            Event::Text(line) => Seen::Text(line.to_owned()),
            Event::Frame { sequence, record } => Seen::Frame(sequence, Owned::new(record)),
            Event::Gap { expected, found } => Seen::Gap(expected, found),
            Event::Corrupt { offset, reason } => Seen::Corrupt(offset, reason),
        });
    };
    let mut demux = Demux::new();
    for piece in pieces {
        demux.feed(piece, &mut report);
    }
    demux.finish(&mut report);
    seen
}

fn frames(seen: &[Seen]) -> Vec<(u32, Owned)> {
    let mut frames = Vec::new();
    for event in seen {
        if let Seen::Frame(sequence, record) = event {
            frames.push((*sequence, record.clone()));
        }
    }
    frames
}

fn lines(seen: &[Seen]) -> Vec<&str> {
    let mut lines = Vec::new();
    for event in seen {
        if let Seen::Text(line) = event {
            lines.push(line.as_str());
        }
    }
    lines
}

fn metric(name: &str, value: u64) -> Owned {
    Owned::new(&Record::Metric(Metric { case: 3, name, value, unit: Unit::Bytes }))
}

fn encode(records: &[Owned]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let mut frame = |record: &Owned| encoder.encode(&record.get()).expect("the record fits").to_vec();
    records.iter().map(&mut frame).collect()
}

fn record() -> impl Strategy<Value = Owned> {
    prop_oneof![
        ("[a-z\n\0\u{fe}]{0,300}", any::<u64>()).prop_map(|(name, value)| metric(&name, value)),
        (0_u32..2, 0_u32..2).prop_map(|(run, failed)| Owned::new(&Record::Done(Done {
            run,
            failed,
            skipped: 0
        }))),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..TraceChunk::MAX_RECORDS * TraceRecord::BYTES))
            .prop_map(|(first, records)| Owned::new(&Record::Trace(TraceChunk {
                core: 287,
                first,
                records: &records
            }))),
    ]
}

#[test]
fn text_and_frames_interleave() {
    let records = [metric("a", 1), metric("b", u64::MAX)];
    let wire = encode(&records);
    let stream = [b"boot\r\nhalf a ", &wire[0][..], b"line\n", &wire[1], b"the end"].concat();
    let expected = vec![
        Seen::Text("boot".into()),
        Seen::Frame(0, records[0].clone()),
        Seen::Text("half a line".into()),
        Seen::Frame(1, records[1].clone()),
        Seen::Text("the end".into()),
    ];
    assert_eq!(decode(&[&stream]), expected);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(decode(&bytes), expected);
}

#[test]
fn a_frame_is_at_most_as_long_as_stated() {
    let mut encoder = Encoder::new();
    let name = |length: usize| "x".repeat(length);
    // Variant, length of the name in two bytes.
    let most = name(MAX_PAYLOAD - 3);
    let frame = encoder.encode(&Record::TestStart(TestStart { name: &most })).unwrap().to_vec();
    assert!(frame.len() <= MAX_FRAME && frame.len() > MAX_FRAME - 32, "{}", frame.len());
    assert_eq!(frame.iter().filter(|&&byte| byte == 0).count(), 2);
    let more = name(MAX_PAYLOAD - 2);
    assert_eq!(encoder.encode(&Record::TestStart(TestStart { name: &more })), Err(EncodeError));
    let next = encoder.encode(&Record::Done(Done::default())).unwrap().to_vec();
    let seen = decode(&[&frame, &next]);
    assert_eq!(frames(&seen).len(), 2);
    assert!(seen.contains(&Seen::Gap(1, 2)), "the record that was too large leaves a gap");
}

#[test]
fn a_lost_frame_is_a_gap() {
    let wire = encode(&[metric("a", 1), metric("b", 2), metric("c", 3)]);
    let seen = decode(&[&wire[0], &wire[2]]);
    assert_eq!(seen[1], Seen::Gap(1, 2));
    assert_eq!(frames(&seen).len(), 2);
}

#[test]
fn damage_is_located() {
    let wire = encode(&[metric("a", 1), metric("b", 2)]);
    let mut damaged = wire[0].clone();
    damaged[8] ^= 1;
    let seen = decode(&[b"text\n", &damaged, &wire[1]]);
    assert_eq!(seen[0], Seen::Text("text".into()));
    assert!(matches!(seen[1], Seen::Corrupt(6, _)), "{seen:?}");
    assert_eq!(seen[2], Seen::Gap(0, 1));
    assert_eq!(frames(&seen).len(), 1);
}

#[test]
fn a_sender_that_dies_in_a_frame_is_still_heard() {
    let wire = encode(&[metric("something", 1)]);
    let cut = &wire[0][..12];
    let seen = decode(&[cut, b"\npanic: why\nwhere\n"]);
    assert!(matches!(seen[0], Seen::Corrupt(1, Corrupt::CutOff)), "{seen:?}");
    assert!(lines(&seen).contains(&"panic: why") && lines(&seen).contains(&"where"), "{seen:?}");
    let resynced = decode(&[cut, b"\0panic: why\n"]);
    assert_eq!(lines(&resynced), ["panic: why"], "a 0x00 before the text loses nothing");
}

#[test]
fn an_endless_frame_is_given_up() {
    let mut stream = encode(&[metric("a", 1)])[0][..4].to_vec();
    stream.extend([b'z'; 3 * MAX_FRAME]);
    stream.extend(b"\nstill here\n");
    let seen = decode(&[&stream]);
    assert!(matches!(seen[0], Seen::Corrupt(1, Corrupt::TooLong)));
    assert_eq!(lines(&seen).last(), Some(&"still here"));
}

/// The wire form of a payload under a correct header and check sum, whatever the payload is.
fn frame_of(payload: &[u8]) -> Vec<u8> {
    let mut content = vec![0xfe, 0xf8, 0, 0, 0, 0];
    content.extend(u32::try_from(payload.len()).expect("short").to_le_bytes());
    content.extend(payload);
    content.extend(crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&content).to_le_bytes());
    let mut stuffed = [0; 64];
    let length = cobs::try_encode(&content, &mut stuffed).expect("short");
    [&[0], &stuffed[..length], &[0]].concat()
}

#[test]
fn a_record_of_another_form_is_reported() {
    // A `Done` of three small numbers is four bytes: the variant, and one for each.
    assert_eq!(frame_of(&[12, 0, 0, 0]), encode(&[Owned::new(&Record::Done(Done::default()))])[0]);
    let unknown = [Seen::Corrupt(1, Corrupt::Record)];
    assert_eq!(decode(&[&frame_of(&[12, 0, 0])]), unknown, "a field is missing");
    assert_eq!(decode(&[&frame_of(&[12, 0, 0, 0, 0])]), unknown, "a field too many");
    assert_eq!(decode(&[&frame_of(&[99, 0, 0, 0])]), unknown, "no such variant");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_sent_comes_out(
        items in prop::collection::vec((record(), "[ -~]{0,40}"), 0..20),
        cuts in prop::collection::vec(1_usize..64, 1..20),
    ) {
        let records: Vec<Owned> = items.iter().map(|(record, _)| record.clone()).collect();
        let mut stream = Vec::new();
        for (frame, (_, text)) in encode(&records).iter().zip(&items) {
            stream.extend_from_slice(frame);
            stream.extend_from_slice(text.as_bytes());
            stream.push(b'\n');
        }
        let (mut pieces, mut rest, mut cuts) = (Vec::new(), &stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        let seen = decode(&pieces);
        let sent: Vec<(u32, Owned)> = (0..).zip(records).collect();
        prop_assert_eq!(frames(&seen), sent);
        prop_assert_eq!(lines(&seen), items.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>());
        prop_assert_eq!(seen.len(), 2 * items.len());
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..600)) {
        // Magic sprinkled in, so that the frame path is reached.
        let marked: Vec<u8> = bytes.iter().flat_map(|&byte| if byte == 7 { vec![0, 3, 0xfe, 0xf8] } else { vec![byte] }).collect();
        prop_assert!(frames(&decode(&[&bytes])).is_empty());
        prop_assert!(frames(&decode(&[&marked])).is_empty());
    }

    #[test]
    fn damage_never_passes_and_never_spreads(
        records in prop::collection::vec(record(), 1..12),
        hits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 1..6),
    ) {
        let wire = encode(&records);
        let mut stream: Vec<(u8, Option<usize>)> = Vec::new();
        for (number, frame) in wire.iter().enumerate() {
            stream.extend(frame.iter().map(|&byte| (byte, Some(number))));
            stream.extend(b"text\n".map(|byte| (byte, None)));
        }
        let mut hit = vec![false; wire.len()];
        for (place, kind, byte) in hits {
            if stream.is_empty() {
                break;
            }
            let at = place.index(stream.len());
            // A byte put in before the first byte of a frame lies outside of it; all else damages the frame it is in.
            let inside = kind != 3 || (at > 0 && stream[at - 1].1 == stream[at].1);
            if let (Some(number), true) = (stream[at].1, inside) {
                hit[number] = true;
            }
            match kind {
                0 => stream[at].0 ^= 1 << (byte % 8),
                1 => stream.truncate(at + 1),
                2 => drop(stream.remove(at)),
                _ => stream.insert(at, (byte, None)),
            }
            if kind == 1 {
                let last = stream.last().and_then(|&(_, number)| number);
                let from = last.map_or(0, |number| number);
                let kept: Vec<usize> = stream.iter().filter_map(|&(_, number)| number).collect();
                (from..wire.len()).filter(|number| kept.iter().filter(|&&own| own == *number).count() < wire[*number].len())
                    .for_each(|number| hit[number] = true);
                (0..wire.len()).filter(|number| !kept.contains(number)).for_each(|number| hit[number] = true);
            }
        }
        let bytes: Vec<u8> = stream.iter().map(|&(byte, _)| byte).collect();
        let delivered = frames(&decode(&[&bytes]));
        for (sequence, record) in &delivered {
            prop_assert_eq!(record, &records[*sequence as usize], "what is delivered is what was sent");
        }
        for (number, record) in (0..).zip(&records).filter(|(number, _)| !hit[*number as usize]) {
            prop_assert!(delivered.contains(&(number, record.clone())), "frame {} is intact", number);
        }
    }
}
