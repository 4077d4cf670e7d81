use super::{BASE_REVISION, COMMON_MAGIC, END_MARKER, Feature, NEWEST, Requests, START_MARKER};
use crate::protocol;
use abi::exit::Exit;
use proptest::prelude::{any, prop_assert, proptest};
use std::mem::{size_of, size_of_val};
use std::vec::Vec;

fn words(parts: &[&[u64]]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.iter()).flat_map(|word| word.to_le_bytes()).collect()
}

fn request(feature: Feature) -> Vec<u64> {
    let mut out = Vec::from(COMMON_MAGIC);
    out.extend(feature.id());
    out.resize(feature.size() / 8, 0);
    out
}

const TAG: [u64; 3] = [BASE_REVISION[0], BASE_REVISION[1], 3];

#[test]
fn ids_are_distinct() {
    for (index, feature) in Feature::ALL.iter().enumerate() {
        assert!(Feature::ALL[..index].iter().all(|other| other.id() != feature.id()));
    }
}

/// The table against the crate that the kernel makes its requests with.
#[test]
fn ids_and_sizes_are_those_of_the_kernels_crate() {
    macro_rules! check {
        ($($feature:ident $request:ident),* $(,)?) => { $(
            let request = limine::request::$request::new();
            let id = [COMMON_MAGIC, Feature::$feature.id()].concat();
            assert_eq!((&request.id()[..], size_of_val(&request)), (&id[..], Feature::$feature.size()));
        )* };
    }
    check!(
        LoaderInfo BootloaderInfoRequest, Cmdline ExecutableCmdlineRequest, StackSize StackSizeRequest,
        Hhdm HhdmRequest, PagingMode PagingModeRequest, Mp MpRequest, MemoryMap MemoryMapRequest,
        EntryPoint EntryPointRequest, ExecutableFile ExecutableFileRequest, Modules ModuleRequest,
        Rsdp RsdpRequest, DateAtBoot DateAtBootRequest, ExecutableAddress ExecutableAddressRequest,
    );
    let sizes = [
        size_of::<limine::mp::Cpu>(),
        size_of::<limine::memory_map::Entry>(),
        size_of::<limine::file::File>(),
    ];
    assert_eq!(
        sizes,
        [size_of::<protocol::Core>(), size_of::<protocol::MemoryMapEntry>(), size_of::<protocol::File>()]
    );
    assert_eq!(size_of::<limine::response::MpResponse>(), size_of::<protocol::Mp>());
}

#[test]
fn finds_requests_without_markers() {
    let image = words(&[&[7], &request(Feature::Hhdm), &TAG, &request(Feature::Mp)]);
    let (requests, tag) = Requests::scan(&image).unwrap();
    assert_eq!(requests.get(Feature::Hhdm), Some(8));
    assert_eq!((tag.offset, tag.asked), (56, 3));
    assert_eq!(requests.get(Feature::Mp), Some(80));
    assert_eq!(requests.get(Feature::Rsdp), None);
}

#[test]
fn honours_the_markers() {
    let hhdm = request(Feature::Hhdm);
    let outside = words(&[&hhdm, &TAG, &START_MARKER, &TAG, &request(Feature::Mp), &END_MARKER, &hhdm]);
    let (requests, tag) = Requests::scan(&outside).unwrap();
    assert_eq!(requests.get(Feature::Hhdm), None);
    assert!(requests.get(Feature::Mp).is_some() && tag.offset > hhdm.len() * 8);
    let restarted = words(&[&START_MARKER, &hhdm, &START_MARKER, &TAG, &hhdm]);
    assert!(Requests::scan(&restarted).is_ok(), "the last start marker counts");
    let (requests, _) = Requests::scan(&words(&[&hhdm, &TAG, &END_MARKER, &hhdm])).unwrap();
    assert_eq!(requests.get(Feature::Hhdm), Some(0));
}

#[test]
fn negotiates_the_base_revision() {
    for (asked, loaded, supported) in
        [(1, 1, true), (2, 2, true), (3, 3, true), (4, NEWEST, false), (99, 3, false)]
    {
        let (_, tag) = Requests::scan(&words(&[&BASE_REVISION, &[asked]])).unwrap();
        assert_eq!((tag.loaded(), tag.is_supported()), (loaded, supported));
    }
    for bad in [&words(&[&BASE_REVISION, &[0]])[..], &words(&[&request(Feature::Hhdm)]), &[]] {
        assert_eq!(Requests::scan(bad).unwrap_err().exit, Exit::BadProtocol);
    }
}

#[test]
fn refuses_what_the_protocol_refuses() {
    let hhdm = request(Feature::Hhdm);
    for bad in [words(&[&TAG, &hhdm, &hhdm]), words(&[&TAG, &TAG]), words(&[&TAG, &hhdm[..5]])] {
        assert_eq!(Requests::scan(&bad).unwrap_err().exit, Exit::BadProtocol);
    }
    let unaligned = [&[0u8; 4][..], &words(&[&hhdm]), &[0; 4], &words(&[&TAG])].concat();
    assert_eq!(Requests::scan(&unaligned).unwrap().0.get(Feature::Hhdm), None);
}

proptest! {
    #[test]
    fn random_images_never_panic(picks in proptest::collection::vec((0usize..20, any::<u64>()), 0..64)) {
        let magic: Vec<u64> = [&COMMON_MAGIC[..], &BASE_REVISION, &START_MARKER, &END_MARKER, &request(Feature::Mp)].concat();
        let picked: Vec<u64> = picks.iter().map(|&(i, raw)| magic.get(i).copied().unwrap_or(raw)).collect();
        let image = words(&[&TAG, &picked]);
        if let Ok((requests, tag)) = Requests::scan(&image) {
            prop_assert!(tag.offset + 24 <= image.len());
            for &feature in Feature::ALL {
                prop_assert!(requests.get(feature).is_none_or(|at| at + feature.size() <= image.len()));
            }
        }
    }
}
