use super::*;
use core::cell::RefCell;
use proptest::prelude::*;
use tessera_block::{MemoryDevice, block_on};
use tessera_datastore::FormatOptions;

const MEMORY: u64 = 4 << 20;

/// A machine's RAM.
struct Ram(RefCell<Vec<u8>>);

impl Ram {
    fn new() -> Self {
        Self(RefCell::new(vec![0; MEMORY as usize]))
    }
}

impl Memory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let ram = self.0.borrow();
        bytes.copy_from_slice(ram.get(address as usize..address as usize + bytes.len())?);
        Some(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Option<Result<(), Failure>> {
        let mut ram = self.0.borrow_mut();
        ram.get_mut(address as usize..address as usize + bytes.len())?
            .copy_from_slice(bytes);
        Some(Ok(()))
    }
}

fn store() -> Rc<Store<MemoryDevice>> {
    let options = FormatOptions {
        label: "test".into(),
        ..FormatOptions::default()
    };
    Rc::new(block_on(Store::format(MemoryDevice::new(512, (64 << 20) / 512), &options)).unwrap())
}

fn filled(pages: &[(usize, u8)]) -> Ram {
    let ram = Ram::new();
    for (page, byte) in pages {
        let at = page % (MEMORY as usize / BLOCK) * BLOCK;
        ram.0.borrow_mut()[at..at + BLOCK].fill(*byte);
    }
    ram
}

fn begin(store: &Rc<Store<MemoryDevice>>, state: &[u8]) -> Writer<MemoryDevice> {
    let announced = (state.len() as u64, checksum(state));
    block_on(Writer::begin(store.clone(), "vm.vmss", 77, ("vm", MEMORY), announced, 0)).unwrap()
}

fn write(store: &Rc<Store<MemoryDevice>>, state: &[u8], ram: &Ram) -> u64 {
    let mut writer = begin(store, state);
    for (at, part) in (0..).step_by(700).zip(state.chunks(700)) {
        block_on(writer.state(at, part)).unwrap();
    }
    block_on(writer.memory(ram, 0, MEMORY / 2)).unwrap();
    block_on(writer.memory(ram, MEMORY / 2, MEMORY / 2)).unwrap();
    block_on(writer.finish()).unwrap()
}

fn read(store: &Rc<Store<MemoryDevice>>) -> Result<(Vec<u8>, Ram), Trouble> {
    let reader = block_on(Reader::open(store.clone(), "vm.vmss", MEMORY))?;
    block_on(reader.check_state())?;
    let state = block_on(reader.state(0, MAX_STATE))?;
    let ram = Ram::new();
    block_on(reader.memory(&ram))?;
    Ok((state, ram))
}

#[test]
fn what_was_cut_off_is_refused() {
    let store = store();
    let ram = filled(&[(3, 7)]);
    let mut writer = begin(&store, b"processors");
    assert!(matches!(read(&store), Err(Trouble::Damage(Damage::NotState))));
    block_on(writer.state(0, b"processors")).unwrap();
    assert!(matches!(block_on(writer.state(5, b"processors")), Err(Trouble::Request(_))));
    assert!(
        matches!(block_on(writer.memory(&ram, CHUNK, CHUNK)), Err(Trouble::Request(_))),
        "out of order"
    );
    block_on(writer.memory(&ram, 0, CHUNK)).unwrap();
    assert!(matches!(read(&store), Err(Trouble::Damage(Damage::NotState))));
    assert!(matches!(block_on(writer.finish()), Err(Trouble::Request(_))));
    // Begun anew over what is there.
    write(&store, b"processors", &ram);
    assert!(read(&store).is_ok());
    begin(&store, b"processors");
    assert!(
        matches!(read(&store), Err(Trouble::Damage(Damage::NotState))),
        "the old state is gone"
    );
}

#[test]
fn another_machines_is_refused() {
    let store = store();
    write(&store, b"", &filled(&[]));
    assert!(matches!(
        block_on(Reader::open(store.clone(), "vm.vmss", MEMORY / 2)),
        Err(Trouble::Memory(MEMORY))
    ));
    store.create_folder("folder", 0).unwrap();
    assert!(matches!(block_on(Reader::open(store, "folder", MEMORY)), Err(Trouble::Request(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn comes_back(state in prop::collection::vec(any::<u8>(), 0..9000), pages in prop::collection::vec((0usize..1024, 0u8..4), 0..60)) {
        let store = store();
        let ram = filled(&pages);
        let length = write(&store, &state, &ram);
        prop_assert!(length <= (BLOCK + state.len() + BLOCK + 4 * BLOCK + 60 * BLOCK) as u64, "zeros are left out");
        let (state_back, ram_back) = read(&store).unwrap();
        prop_assert_eq!(state_back, state);
        prop_assert!(*ram_back.0.borrow() == *ram.0.borrow());
    }

    #[test]
    fn damage_anywhere_is_found(pages in prop::collection::vec((0usize..1024, 1u8..4), 1..20), place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let store = store();
        let state = vec![9; 5000];
        let length = write(&store, &state, &filled(&pages));
        let file = store.lookup("vm.vmss").unwrap().id;
        let at = place.index(length as usize) as u64;
        // The rest of the state's last block is padding.
        prop_assume!(!(BLOCK as u64 + 5000..3 * BLOCK as u64).contains(&at));
        let mut byte = [0];
        block_on(store.read(file, at, &mut byte)).unwrap();
        block_on(store.write(file, at, &[byte[0] ^ 1 << bit])).unwrap();
        prop_assert!(read(&store).is_err(), "byte {at} of {length}");
    }

    #[test]
    fn any_length_is_survived(pages in prop::collection::vec((0usize..1024, 1u8..4), 1..20), length in any::<prop::sample::Index>()) {
        let store = store();
        let whole = write(&store, b"x", &filled(&pages));
        let file = store.lookup("vm.vmss").unwrap().id;
        block_on(store.set_file_size(file, length.index(whole as usize) as u64)).unwrap();
        prop_assert!(read(&store).is_err());
    }
}

#[test]
fn suspended_machines_are_found_by_their_files() {
    let store = store();
    let found = |name: &str| block_on(holds(&store, name)).unwrap();
    assert!(!found("vm"), "there is no file");
    drop(begin(&store, b"processors"));
    assert!(!found("vm"), "it was not written to its end");
    write(&store, b"processors", &filled(&[(3, 7)]));
    assert!(found("vm"));
    assert_eq!(block_on(suspended(&store, 9)).unwrap(), ["vm"]);
    assert!(block_on(suspended(&store, 0)).unwrap().is_empty());
    store.rename("vm.vmss", "other.vmss").unwrap();
    assert!(!found("other"), "it is of another machine");
    assert!(!found("vm"));
    store.rename("other.vmss", "vm.vmss").unwrap();
    let file = store.lookup("vm.vmss").unwrap().id;
    block_on(store.write(file, 100, b"!")).unwrap();
    assert!(found("vm"), "what is damaged is not gone over");
    assert!(matches!(read(&store), Err(Trouble::Damage(Damage::Checksum(_)))));
    block_on(store.remove("vm.vmss")).unwrap();
    store.create_folder("vm.vmss", 0).unwrap();
    assert!(!found("vm"), "a folder is no file");
}
