//! The clock by time servers: SNTP (RFC 4330), and what the answers make of the machine's own clock.

/// UDP port of time servers.
pub const PORT: u16 = 123;
/// Bytes of a packet.
pub const LENGTH: usize = 48;
/// Seconds from 1900 to 1970.
const SINCE_1900: u64 = 2_208_988_800;
/// What the top bit of a packet's seconds tells: without it they count from 2036 (RFC 4330, 3).
const ERA: u64 = 1 << 32;
/// Answers that took longer say little.
const MOST_DELAY_US: i64 = 2_000_000;
/// Between answers so far apart the clock's rate can be told, in microseconds.
const BASE_US: u64 = 30_000_000;
/// A clock that is further off in its rate is not the clock's, but a server's fault.
const MOST_DRIFT_PPB: i64 = 1_000_000;

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How far the clock is behind, in microseconds.
    pub offset_us: i64,
    /// How long the packets were on their way, in microseconds.
    pub delay_us: i64,
    /// Steps from a clock that is right by itself.
    pub stratum: u8,
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// It is no packet of a server.
    Malformed,
    /// It answers another question.
    Foreign,
    /// The server does not know the time itself, or sends askers away.
    NotSynchronized,
    /// Its times cannot be.
    Nonsense,
}

/// A question. `nonce` stands where the time of asking may: the server sends it back, and nobody learns our clock.
#[must_use]
pub fn question(nonce: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    // No warning, version 4, client.
    packet[0] = 4 << 3 | 3;
    packet[40..].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// Microseconds since 1970 of a time as packets have it.
fn unix_us(timestamp: u64) -> u64 {
    let (seconds, fraction) = (timestamp >> 32, timestamp & 0xffff_ffff);
    let seconds = if seconds & 1 << 31 == 0 { seconds + ERA } else { seconds };
    seconds.saturating_sub(SINCE_1900) * 1_000_000 + ((fraction * 1_000_000) >> 32)
}

/// What an answer says that came at `received_us` to a question that was sent at `sent_us`, both in microseconds of our clock.
///
/// # Errors
/// It says nothing that could be believed.
pub fn answer(packet: &[u8], nonce: u64, sent_us: u64, received_us: u64) -> Result<Answer, AnswerError> {
    let packet: &[u8; LENGTH] = packet
        .get(..LENGTH)
        .and_then(|head| head.try_into().ok())
        .ok_or(AnswerError::Malformed)?;
    let (leap, version, mode, stratum) = (packet[0] >> 6, packet[0] >> 3 & 7, packet[0] & 7, packet[1]);
    if mode != 4 || !(3..=4).contains(&version) {
        return Err(AnswerError::Malformed);
    }
    let [.., origin, receive, transmit] = *packet.as_chunks::<8>().0 else {
        return Err(AnswerError::Malformed);
    };
    if u64::from_be_bytes(origin) != nonce {
        return Err(AnswerError::Foreign);
    }
    let (receive, transmit) = (u64::from_be_bytes(receive), u64::from_be_bytes(transmit));
    if leap == 3 || !(1..16).contains(&stratum) || transmit == 0 {
        return Err(AnswerError::NotSynchronized);
    }
    let [t1, t2, t3, t4] = [sent_us, unix_us(receive), unix_us(transmit), received_us].map(i128::from);
    let delay_us = i64::try_from((t4 - t1) - (t3 - t2)).map_err(|_| AnswerError::Nonsense)?;
    if !(-1000..=MOST_DELAY_US).contains(&delay_us) || t3 < t2 {
        return Err(AnswerError::Nonsense);
    }
    Ok(Answer {
        offset_us: i64::try_from(((t2 - t1) + (t3 - t4)) / 2).map_err(|_| AnswerError::Nonsense)?,
        delay_us: delay_us.max(0),
        stratum,
    })
}

/// The machine's own clock, set right.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// What it was behind at `at_us` of itself.
    offset_us: i64,
    at_us: u64,
    drift_ppb: Option<i64>,
    /// Where the rate is measured from.
    base: Option<(u64, i64)>,
}

impl Clock {
    /// Microseconds since 1970, when the machine's own clock says `raw_us`.
    #[must_use]
    pub fn unix_us(&self, raw_us: u64) -> u64 {
        let since = i128::from(raw_us) - i128::from(self.at_us);
        let drifted = i128::from(self.drift_ppb.unwrap_or(0)) * since / 1_000_000_000;
        let all = i128::from(raw_us) + i128::from(self.offset_us) + drifted;
        u64::try_from(all.max(0)).unwrap_or(u64::MAX)
    }

    /// Parts per billion that the machine's clock is slow, as far as that is known.
    #[must_use]
    pub fn drift_ppb(&self) -> Option<i64> {
        self.drift_ppb
    }

    /// A server said at `raw_us` of the machine's clock that the time is `offset_us` later than [`Self::unix_us`] has it.
    pub fn set(&mut self, raw_us: u64, offset_us: i64) {
        let now = i128::from(self.unix_us(raw_us)) + i128::from(offset_us);
        let whole = i64::try_from(now - i128::from(raw_us)).unwrap_or(self.offset_us);
        match self.base {
            Some((base, first)) if raw_us.saturating_sub(base) >= BASE_US => {
                let drift = (i128::from(whole) - i128::from(first)) * 1_000_000_000 / i128::from(raw_us - base);
                match i64::try_from(drift).ok().filter(|drift| drift.abs() <= MOST_DRIFT_PPB) {
                    Some(drift) => self.drift_ppb = Some(drift),
                    None => (self.base, self.drift_ppb) = (Some((raw_us, whole)), None),
                }
            }
            Some(_) => {}
            None => self.base = Some((raw_us, whole)),
        }
        (self.offset_us, self.at_us) = (whole, raw_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn timestamp(unix_us: u64) -> u64 {
        let (seconds, us) = (unix_us / 1_000_000 + SINCE_1900, unix_us % 1_000_000);
        (seconds & 0xffff_ffff) << 32 | ((us << 32) / 1_000_000 + 1)
    }

    fn packet(nonce: u64, receive: u64, transmit: u64) -> [u8; LENGTH] {
        let mut packet = [0; LENGTH];
        packet[..2].copy_from_slice(&[4 << 3 | 4, 2]);
        packet[24..32].copy_from_slice(&nonce.to_be_bytes());
        packet[32..40].copy_from_slice(&timestamp(receive).to_be_bytes());
        packet[40..].copy_from_slice(&timestamp(transmit).to_be_bytes());
        packet
    }

    const NOW: u64 = 1_796_083_199_000_000;

    #[test]
    fn a_server_is_believed_and_others_are_not() {
        let good = packet(7, NOW + 5_000_100, NOW + 5_000_200);
        let said = answer(&good, 7, NOW, NOW + 300).unwrap();
        assert!((said.offset_us - 5_000_000).abs() <= 2 && said.delay_us == 200, "{said:?}");
        assert_eq!(answer(&good, 8, NOW, NOW + 300), Err(AnswerError::Foreign));
        assert_eq!(answer(&good[..47], 7, NOW, NOW + 300), Err(AnswerError::Malformed));
        let with = |place: usize, value: u8| {
            let mut bad = good;
            bad[place] = value;
            answer(&bad, 7, NOW, NOW + 300)
        };
        assert_eq!(with(0, 4 << 3 | 3), Err(AnswerError::Malformed), "a client's packet");
        assert_eq!(with(0, 3 << 6 | 4 << 3 | 4), Err(AnswerError::NotSynchronized));
        assert_eq!(with(1, 0), Err(AnswerError::NotSynchronized), "a kiss of death");
        assert_eq!(with(1, 16), Err(AnswerError::NotSynchronized));
        let slow = packet(7, NOW, NOW + 10);
        assert_eq!(answer(&slow, 7, NOW, NOW + 3_000_000), Err(AnswerError::Nonsense));
    }

    #[test]
    fn times_after_2036_are_understood() {
        let later = 2_400_000_000_000_000;
        assert!(unix_us(timestamp(later)).abs_diff(later) <= 1);
        assert!(unix_us(timestamp(NOW)).abs_diff(NOW) <= 1);
    }

    #[test]
    fn the_clocks_rate_is_found_and_made_up_for() {
        let mut clock = Clock::default();
        // It is 100 s behind and loses 50 microseconds a second.
        let right = |raw: u64| raw + 100_000_000 + (raw - NOW) * 50 / 1_000_000;
        for step in 0..10 {
            let raw = NOW + step * 16_000_000;
            let off = right(raw) as i64 - clock.unix_us(raw) as i64;
            clock.set(raw, off);
            assert!(clock.unix_us(raw).abs_diff(right(raw)) <= 1);
        }
        assert!((clock.drift_ppb().unwrap() - 50_000).abs() < 100, "{clock:?}");
        let raw = NOW + 1_000_000_000;
        assert!(clock.unix_us(raw).abs_diff(right(raw)) < 200);
    }

    #[test]
    fn a_server_that_jumps_sets_the_time_and_no_rate() {
        let mut clock = Clock::default();
        clock.set(NOW, 0);
        clock.set(NOW + 60_000_000, 3_600_000_000);
        assert_eq!(clock.drift_ppb(), None);
        assert_eq!(clock.unix_us(NOW + 60_000_000), NOW + 3_660_000_000);
    }

    proptest! {
        #[test]
        fn any_packet_and_any_clock(bytes: Vec<u8>, nonce: u64, sent: u64, received: u64) {
            let _ = answer(&bytes, nonce, sent, received);
            let mut whole = packet(nonce, sent % NOW, received % NOW);
            for (to, from) in whole.iter_mut().zip(&bytes) {
                *to ^= *from;
            }
            let _ = answer(&whole, nonce, sent, received);
        }

        #[test]
        fn any_history(steps in proptest::collection::vec((any::<u64>(), any::<i64>()), 0..20)) {
            let mut clock = Clock::default();
            for (raw, offset) in steps {
                clock.set(raw, offset);
                let _ = clock.unix_us(raw);
            }
        }
    }
}
