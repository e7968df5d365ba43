//! All interleavings of one writer and one reader, by loom: `RUSTFLAGS="--cfg loom" cargo test -p tessera-ring --release`.

use super::*;
use loom::thread;

#[test]
fn no_interleaving_loses_or_garbles_a_byte() {
    loom::model(|| {
        let header: &'static Header = Box::leak(Box::new(Header {
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
        }));
        let data: &'static [AtomicU8] = Box::leak((0..2).map(|_| AtomicU8::new(0)).collect::<Vec<_>>().into_boxed_slice());
        let memory = Memory { header, data };
        let writer = thread::spawn(move || {
            let mut writer = Writer { memory, written: 0 };
            let mut sent = writer.write(&[1, 2, 3]);
            sent += writer.write(&[1, 2, 3][sent..]);
            sent
        });
        let mut reader = Reader { memory, read: 0 };
        let mut buffer = [0; 3];
        let mut received = reader.read(&mut buffer);
        received += reader.read(&mut buffer[received..]);
        let sent = writer.join().unwrap();
        received += reader.read(&mut buffer[received..]);
        assert_eq!(received, sent);
        assert_eq!(buffer[..received], [1, 2, 3][..received]);
    });
}
