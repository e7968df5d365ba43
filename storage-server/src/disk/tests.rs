use super::*;
use crate::controller::Done;
use proptest::prelude::*;
use tessera_device::executor::Executor;
use tessera_proto::storage::DiskHealth;

const SIZE: usize = 512;
const SECTORS: u64 = 2048;

/// A controller with room for a few commands, each of a few pieces, which completes them in any order when it is polled.
struct Small {
    medium: Rc<RefCell<Vec<u8>>>,
    memory: DmaBuffer,
    bounce: DmaBuffer,
    flying: Vec<(u32, Operation, u64, u64, Vec<Segment>)>,
    order: u64,
}

impl Controller for Small {
    fn driver(&self) -> &'static str {
        "small"
    }
    fn unit(&self, unit: u32) -> Option<Unit> {
        (unit == 0).then(|| Unit {
            name: "small0".into(),
            model: String::new(),
            serial: String::new(),
            firmware: String::new(),
            geometry: Geometry {
                sector_size: SIZE as u32,
                sectors: SECTORS,
                max_transfer: 16 << 10,
                discard: false,
                write_cache: true,
                read_only: false,
            },
            queues: 1,
            state: DiskState::Ready,
            health: DiskHealth::default(),
            resets: 0,
        })
    }
    fn fits(&self, _: u32, request: &Request<'_>) -> bool {
        request.segments.len() <= 3 && request.sectors <= 32
    }
    fn zeroes(&self, _: u32) -> bool {
        false
    }
    fn submit(&mut self, _: u32, request: &Request<'_>, tag: u32, _: u64) -> Result<(), Refused> {
        assert!(self.fits(0, request));
        if self.flying.len() == 2 {
            return Err(Refused::Full);
        }
        self.flying
            .push((tag, request.operation, request.sector, request.sectors, request.segments.into()));
        Ok(())
    }
    fn poll(&mut self, done: &mut Done<'_>) {
        if self.flying.is_empty() {
            return;
        }
        self.order = self.order.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let (tag, operation, sector, _, segments) = self.flying.remove((self.order >> 33) as usize % self.flying.len());
        let mut at = sector as usize * SIZE;
        let mut medium = self.medium.borrow_mut();
        for segment in segments {
            let memory =
                if segment.physical < self.memory.physical() || segment.physical >= self.memory.physical() + self.memory.length() as u64 {
                    &self.bounce
                } else {
                    &self.memory
                };
            let place = (segment.physical - memory.physical()) as usize;
            let part = &mut medium[at..at + segment.length as usize];
            match operation {
                Operation::Read => memory.copy_in(place, part),
                Operation::Write => memory.copy_out(place, part),
                _ => {}
            }
            at += segment.length as usize;
        }
        done(tag, Ok(()));
    }
    fn watch(&mut self, _: u64, done: &mut Done<'_>) {
        self.poll(done);
    }
    fn has_interrupts(&self) -> bool {
        false
    }
}

#[derive(Default)]
struct Count(RefCell<Vec<(u64, Result<(), IoError>)>>);

impl Sink for Count {
    fn completed(&self, cookie: u64, result: Result<(), IoError>) {
        self.0.borrow_mut().push((cookie, result));
    }
}

struct Bench {
    host: Rc<Host>,
    disk: Rc<Disk>,
    medium: Rc<RefCell<Vec<u8>>>,
    memory: DmaBuffer,
}

fn bench() -> Bench {
    let medium = Rc::new(RefCell::new(vec![0xee; SECTORS as usize * SIZE]));
    let (memory, chunks) = (DmaBuffer::of_this_process(1 << 20), DmaBuffer::of_this_process(3 * CHUNK));
    let controller = Small {
        medium: medium.clone(),
        memory: memory.clone(),
        bounce: chunks.clone(),
        flying: Vec::new(),
        order: 1,
    };
    let host = Host::new(Box::new(controller), "0000:00:01.0".into());
    let disk = host.disks(&Bounce::new(chunks)).remove(0);
    Bench {
        host,
        disk,
        medium,
        memory,
    }
}

#[test]
fn futures_wait_for_room_for_memory_and_for_commands() {
    let Bench { host, disk, medium, .. } = bench();
    let executor = Executor::new();
    let done = Rc::new(Cell::new(0));
    for number in 0..6u64 {
        let (disk, done) = (disk.clone(), done.clone());
        executor.spawn(async move {
            let data: Vec<u8> = (0..200 * SIZE).map(|place| (place as u64 * 7 + number) as u8).collect();
            disk.write(number * 200, &data).await.unwrap();
            let mut back = vec![0; data.len()];
            disk.read(number * 200, &mut back).await.unwrap();
            assert_eq!(back, data);
            disk.write_zeroes(number * 200, 150).await.unwrap();
            disk.flush().await.unwrap();
            assert!(matches!(disk.read(SECTORS, &mut [0; SIZE]).await, Err(IoError::OutOfRange { .. })));
            assert_eq!(disk.discard(0, 1).await, Err(IoError::Unsupported));
            done.set(done.get() + 1);
        });
    }
    for _ in 0..5000 {
        executor.run();
        host.poll(0);
    }
    assert_eq!(done.get(), 6);
    assert!(medium.borrow()[..150 * SIZE].iter().all(|byte| *byte == 0));
    assert_eq!(medium.borrow()[150 * SIZE..200 * SIZE][1], (150 * SIZE as u64 * 7 + 7) as u8);
    let info = disk.info();
    assert_eq!((info.statistics.flushes, info.statistics.errors), (6, 0));
    assert!(!host.wants_polling());
}

proptest! {
    /// However memory is cut, a request is done once and whole, or refused because its memory would have to be copied.
    #[test]
    fn requests_of_any_shape_end_once(lengths in proptest::collection::vec(1u32..40_000, 1..40), aligned: bool, sector in 0u64..SECTORS) {
        let Bench { host, disk, medium, memory } = bench();
        let mut segments = Vec::new();
        let mut at = 0u64;
        for length in lengths {
            let length = if aligned { length.next_multiple_of(SIZE as u32) } else { length };
            if at + u64::from(length) > memory.length() as u64 { break; }
            segments.push(Segment { physical: memory.physical() + at, length });
            at += u64::from(length);
        }
        let spare = at % SIZE as u64;
        if spare > 0 {
            segments.push(Segment { physical: memory.physical() + at, length: SIZE as u32 - spare as u32 });
            at += SIZE as u64 - spare;
        }
        for place in 0..memory.length() / 8 {
            memory.write(place * 8, place as u64);
        }
        let sectors = at / SIZE as u64;
        let request = Request { operation: Operation::Write, sector, sectors, segments: &segments };
        let counts = Rc::new(Count::default());
        let sink: Rc<dyn Sink> = counts.clone();
        disk.submit(&request, &sink, 9);
        for _ in 0..500 {
            host.poll(0);
        }
        let ended = counts.0.borrow();
        prop_assert_eq!(ended.len(), 1);
        prop_assert_eq!(ended[0].0, 9);
        let fits = sector + sectors <= SECTORS;
        match ended[0].1 {
            Ok(()) => {
                prop_assert!(fits);
                let mut expected = vec![0; at as usize];
                memory.copy_out(0, &mut expected);
                let start = sector as usize * SIZE;
                prop_assert!(medium.borrow()[start..start + expected.len()] == expected[..]);
            }
            Err(IoError::Misaligned { .. }) => prop_assert!(!aligned),
            Err(IoError::OutOfRange { .. }) => prop_assert!(!fits),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
