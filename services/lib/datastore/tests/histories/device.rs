//! A device whose power can go: what was not flushed is then dropped, torn and reordered, sector by sector.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;
use tessera_block::{BlockDevice, Geometry, IoError};

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Random numbers that repeat (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How a power cut treats what was not flushed.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Drop,
    Keep,
    /// Each sector has the last, an earlier, or no unflushed content.
    Any,
    /// All up to some write, and that one in part.
    Prefix,
}

pub struct CutDevice {
    /// What reads see.
    current: RefCell<Vec<u8>>,
    /// What a power cut leaves for certain.
    durable: RefCell<Vec<u8>>,
    /// Sectors written since the last flush, in order, with their content.
    unflushed: RefCell<Vec<Write>>,
    /// Sectors written so far.
    written: Cell<u64>,
    /// Writes, flushes and discards until the power goes.
    left: Cell<Option<u64>>,
    /// How long requests take, while several tasks are at work.
    delays: RefCell<Option<Random>>,
}

/// A sector that was written.
struct Write {
    /// Its number among all that were.
    number: u64,
    sector: u64,
    data: Vec<u8>,
}

impl CutDevice {
    pub fn new(bytes: usize) -> Self {
        Self {
            current: RefCell::new(vec![0; bytes]),
            durable: RefCell::new(vec![0; bytes]),
            unflushed: RefCell::default(),
            written: Cell::new(0),
            left: Cell::new(None),
            delays: RefCell::new(None),
        }
    }

    /// From now on requests take a while, each another, so that tasks overtake each other; or they do not.
    pub fn set_delays(&self, random: Option<Random>) {
        self.delays.replace(random);
    }

    /// Waits for up to a few turns of the task.
    pub async fn delay(&self) {
        let mut turns = self.delays.borrow_mut().as_mut().map_or(0, |random| random.below(4));
        poll_fn(|context| {
            if turns == 0 {
                return Poll::Ready(());
            }
            turns -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn note(&self, sector: u64, data: &[u8]) {
        let number = self.written.replace(self.written.get() + 1);
        self.unflushed.borrow_mut().push(Write {
            number,
            sector,
            data: data.to_vec(),
        });
    }

    /// The power goes after that many requests.
    pub fn cut_after(&self, requests: u64) {
        self.left.set(Some(requests));
    }

    /// Whether the power is gone.
    pub fn is_dead(&self) -> bool {
        self.left.get() == Some(0)
    }

    /// The power went and comes back.
    pub fn cut(&self, random: &mut Random) {
        let mode = match random.below(8) {
            0 => Cut::Drop,
            1 => Cut::Keep,
            2 => Cut::Prefix,
            _ => Cut::Any,
        };
        let writes = self.unflushed.take();
        let mut durable = self.durable.borrow_mut();
        let mut put = |sector: u64, data: &[u8]| durable[sector as usize * SECTOR..][..SECTOR].copy_from_slice(data);
        match mode {
            Cut::Drop => {}
            Cut::Keep => writes.iter().for_each(|write| put(write.sector, &write.data)),
            Cut::Prefix => {
                let count = random.below(writes.len() as u64 + 1) as usize;
                writes[..count].iter().for_each(|write| put(write.sector, &write.data));
            }
            Cut::Any => {
                let mut versions: BTreeMap<u64, Vec<&Vec<u8>>> = BTreeMap::new();
                for write in &writes {
                    versions.entry(write.sector).or_default().push(&write.data);
                }
                let keep = [10, 50, 90][random.below(3) as usize];
                for (sector, versions) in versions {
                    if random.chance(keep) {
                        put(sector, versions[random.below(versions.len() as u64) as usize]);
                    }
                }
            }
        }
        let mut current = self.current.borrow_mut();
        for Write { sector, .. } in &writes {
            let range = *sector as usize * SECTOR..(*sector as usize + 1) * SECTOR;
            current[range.clone()].copy_from_slice(&durable[range]);
        }
        self.left.set(None);
    }

    fn count(&self) -> Result<bool, IoError> {
        match self.left.get() {
            Some(0) => Err(IoError::Gone),
            Some(left) => {
                self.left.set(Some(left - 1));
                Ok(left == 1)
            }
            None => Ok(false),
        }
    }
}

impl BlockDevice for CutDevice {
    fn geometry(&self) -> Geometry {
        let sectors = (self.current.borrow().len() / SECTOR) as u64;
        Geometry {
            sector_size: SECTOR as u32,
            sectors,
            max_transfer: 1 << 20,
            discard: true,
            write_cache: true,
            read_only: false,
        }
    }

    async fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), IoError> {
        self.geometry().check_buffer(sector, buffer.len())?;
        self.delay().await;
        if self.is_dead() {
            return Err(IoError::Gone);
        }
        buffer.copy_from_slice(&self.current.borrow()[sector as usize * SECTOR..][..buffer.len()]);
        self.delay().await;
        Ok(())
    }

    async fn write(&self, sector: u64, data: &[u8]) -> Result<(), IoError> {
        self.geometry().check_write(sector, data.len())?;
        self.delay().await;
        let last = self.count()?;
        self.current.borrow_mut()[sector as usize * SECTOR..][..data.len()].copy_from_slice(data);
        for (sector, part) in (sector..).zip(data.chunks(SECTOR)) {
            self.note(sector, part);
        }
        self.delay().await;
        if last { Err(IoError::Gone) } else { Ok(()) }
    }

    async fn flush(&self) -> Result<(), IoError> {
        // What is written while it flushes is none of its business.
        let end = self.written.get();
        self.delay().await;
        // Power that goes during a flush may leave anything of it.
        if self.count()? {
            return Err(IoError::Gone);
        }
        let (flushed, rest) = self.unflushed.take().into_iter().partition(|write| write.number < end);
        self.unflushed.replace(rest);
        let flushed: Vec<Write> = flushed;
        {
            let mut durable = self.durable.borrow_mut();
            for Write { sector, data, .. } in flushed {
                durable[sector as usize * SECTOR..][..SECTOR].copy_from_slice(&data);
            }
        }
        self.delay().await;
        Ok(())
    }

    async fn discard(&self, sector: u64, count: u64) -> Result<(), IoError> {
        self.geometry().check(sector, count)?;
        self.delay().await;
        if self.count()? {
            return Err(IoError::Gone);
        }
        // What was discarded reads as garbage, so that nobody comes to rely on it.
        let garbage = [0xdb; SECTOR];
        for sector in sector..sector + count {
            self.current.borrow_mut()[sector as usize * SECTOR..][..SECTOR].copy_from_slice(&garbage);
            self.note(sector, &garbage);
        }
        self.delay().await;
        Ok(())
    }
}
