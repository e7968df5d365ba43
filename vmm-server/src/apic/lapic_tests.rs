use super::super::lapic_registers::{Refused, register};
use super::*;
use proptest::prelude::*;

const CLOCK: Clock = Clock::new(1_000_000_000, 0);

fn page() -> &'static ApicPage {
    Box::leak(Box::default())
}

fn enabled() -> Lapic {
    let mut lapic = Lapic::new(0, CLOCK, page());
    lapic.write_page(0xf0, 0x1ff, 0);
    lapic
}

fn x2apic() -> Lapic {
    let mut lapic = enabled();
    assert!(lapic.set_base(BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC));
    lapic
}

#[test]
fn a_timer_that_expires_masked_does_not_fire_when_it_is_unmasked() {
    let mut lapic = Lapic::new(0, CLOCK, page());
    lapic.write_page(0xf0, 0x1ff, 0);
    lapic.write_page(0x320, 0x1_0061, 0);
    lapic.write_page(0x3e0, 0xb, 0);
    lapic.write_page(0x380, 100_000, 0);
    // Nobody looked before the guest unmasks it.
    lapic.write_page(0x320, 0x61, 200_000);
    lapic.run_timer(200_001);
    assert!(!lapic.has_requests());
    // The other way round it has fired.
    lapic.write_page(0x380, 100_000, 300_000);
    lapic.write_page(0x320, 0x1_0061, 500_000);
    assert!(lapic.has_requests());
}

#[test]
fn virtual_wire_lets_the_8259_through_until_the_apic_is_initialised() {
    let mut lapic = Lapic::new(0, CLOCK, page());
    assert!(!lapic.accepts_external(), "masked after power-on");
    lapic.set_virtual_wire();
    assert!(lapic.accepts_external() && lapic.is_software_enabled());
    lapic.init();
    assert!(!lapic.accepts_external());
}

#[test]
fn starts_disabled_and_masked() {
    let mut lapic = Lapic::new(3, CLOCK, page());
    lapic.accept(0x40, false);
    assert!(!lapic.has_requests(), "a software-disabled APIC takes no vectors");
    assert_eq!(lapic.read_page(0x20, 0), 3 << 24);
    for offset in (0x320..=0x370).step_by(16) {
        assert_eq!(lapic.read_page(offset, 0), 1 << 16);
        lapic.write_page(offset, 0x40, 0);
        assert_eq!(lapic.read_page(offset, 0), 1 << 16 | 0x40, "entries stay masked while disabled");
    }
}

#[test]
fn delivers_by_priority_and_nests() {
    let mut lapic = enabled();
    lapic.accept(0x41, false);
    lapic.accept(0x83, false);
    assert_eq!(lapic.deliverable(), Some(0x83));
    lapic.deliver(0x83);
    assert_eq!(lapic.deliverable(), None, "0x41 is below the vector in service");
    assert_eq!(lapic.ppr(), 0x80);
    lapic.accept(0x8f, false);
    assert_eq!(lapic.deliverable(), None, "the same class does not preempt");
    lapic.accept(0x91, false);
    assert_eq!(lapic.deliverable(), Some(0x91));
    lapic.deliver(0x91);
    assert_eq!(lapic.write_page(0xb0, 0, 0), Effect::None);
    assert_eq!(lapic.deliverable(), None);
    lapic.end();
    assert_eq!(lapic.deliverable(), Some(0x8f));
}

#[test]
fn task_priority_holds_back() {
    let mut lapic = enabled();
    lapic.accept(0x41, false);
    lapic.set_task_priority(4);
    assert_eq!(lapic.deliverable(), None);
    lapic.set_task_priority(3);
    assert_eq!(lapic.deliverable(), Some(0x41));
}

#[test]
fn level_interrupts_end_at_the_io_apic() {
    let mut lapic = enabled();
    lapic.accept(0x51, true);
    lapic.deliver(0x51);
    assert!(!lapic.may_skip_end());
    assert_eq!(lapic.write_page(0xb0, 0, 0), Effect::EndLevel(0x51));
    lapic.accept(0x51, false);
    lapic.deliver(0x51);
    assert!(lapic.may_skip_end());
    assert_eq!(lapic.write_page(0xb0, 0, 0), Effect::None);
    lapic.write_page(0xf0, 0x11ff, 0);
    lapic.accept(0x51, true);
    lapic.deliver(0x51);
    assert_eq!(lapic.end(), Effect::None, "the guest suppressed the broadcast");
}

#[test]
fn one_shot_fires_once() {
    let mut lapic = enabled();
    lapic.write_page(0x3e0, 0xb, 0); // divide by 1
    lapic.write_page(0x320, 0x40, 0);
    lapic.write_page(0x380, 1000, 500);
    assert!((1500..=1501).contains(&lapic.deadline()));
    assert!((500..=501).contains(&lapic.read_page(0x390, 1000)));
    lapic.run_timer(1499);
    assert!(!lapic.has_requests());
    lapic.run_timer(1501);
    assert_eq!(lapic.deliverable(), Some(0x40));
    assert_eq!(lapic.deadline(), NEVER);
    assert_eq!(lapic.read_page(0x390, 2000), 0);
}

#[test]
fn periodic_skips_what_was_missed() {
    let mut lapic = enabled();
    lapic.write_page(0x3e0, 0x3, 0); // divide by 16
    lapic.write_page(0x320, 0x2_0040, 0);
    lapic.write_page(0x380, 1000, 0);
    let first = lapic.deadline();
    assert!((16_000..=16_001).contains(&first));
    lapic.run_timer(100_000);
    assert!(lapic.deadline() > 100_000 && lapic.deadline() <= 116_002);
    assert_eq!(lapic.deliverable(), Some(0x40));
}

#[test]
fn a_mad_period_does_not_keep_the_host_busy() {
    let mut lapic = enabled();
    lapic.write_page(0x3e0, 0xb, 0);
    lapic.write_page(0x320, 0x2_0040, 0);
    lapic.write_page(0x380, 1, 0);
    lapic.run_timer(10);
    assert!(lapic.deadline() >= 10_000);
}

#[test]
fn tsc_deadline() {
    let mut lapic = x2apic();
    lapic.set_tsc_deadline(1234, 0);
    assert_eq!((lapic.deadline(), lapic.tsc_deadline()), (NEVER, 0), "ignored in other modes");
    lapic.write_msr(register::LVT_TIMER, 0x4_0040, 0).unwrap();
    let offset = 0u64.wrapping_sub(1_000_000);
    lapic.set_tsc_deadline(500, offset);
    assert_eq!(lapic.deadline(), 1_000_500);
    lapic.run_timer(1_000_500);
    assert_eq!((lapic.deadline(), lapic.tsc_deadline()), (NEVER, 0));
    assert_eq!(lapic.deliverable(), Some(0x40));
    lapic.set_tsc_deadline(u64::MAX, offset);
    assert!(lapic.deadline() > 1 << 62, "far in the future, not wrapped to the past");
    lapic.set_tsc_deadline(0, offset);
    assert_eq!(lapic.deadline(), NEVER);
    lapic.set_tsc_deadline(1, offset);
    lapic.write_msr(register::LVT_TIMER, 0x40, 0).unwrap();
    assert_eq!(lapic.deadline(), NEVER, "leaving the mode disarms");
}

#[test]
fn mode_changes() {
    let mut lapic = enabled();
    assert!(!lapic.set_base(BASE_ADDRESS | BASE_X2APIC), "x2APIC without enable");
    assert!(!lapic.set_base(0xdead_0000 | BASE_ENABLE), "cannot be moved");
    assert!(lapic.set_base(BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC));
    assert!(!lapic.set_base(BASE_ADDRESS | BASE_ENABLE), "x2APIC to xAPIC");
    assert!(lapic.set_base(BASE_ADDRESS));
    assert!(!lapic.set_base(BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC), "disabled to x2APIC");
    assert!(lapic.set_base(BASE_ADDRESS | BASE_ENABLE));
    assert_eq!(lapic.base() & BASE_BSP, BASE_BSP, "the boot flag cannot be taken away");
}

#[test]
fn x2apic_refuses_what_it_lacks() {
    let mut lapic = x2apic();
    for index in [register::DFR, register::ICR_HIGH, 0x2f, 0x3d, 0x00] {
        assert_eq!(lapic.read_msr(index, 0), Err(Refused), "{index:#x}");
        assert_eq!(lapic.write_msr(index, 0, 0), Err(Refused), "{index:#x}");
    }
    assert_eq!(lapic.write_msr(register::EOI, 1, 0), Err(Refused));
    assert_eq!(lapic.write_msr(register::SVR, 1 << 32, 0), Err(Refused));
    assert_eq!(lapic.read_msr(register::LDR, 0), Ok(1));
    assert_eq!(lapic.write_msr(register::SELF_IPI, 0x77, 0), Ok(Effect::None));
    assert_eq!(lapic.deliverable(), Some(0x77));
}

#[test]
fn interrupt_commands() {
    let mut lapic = enabled();
    lapic.write_page(0x310, 2 << 24, 0);
    assert_eq!(lapic.write_page(0x300, 0x41, 0), Effect::Ipi(2 << 56 | 0x41));
    assert_eq!(
        lapic.write_page(0x300, 0x4500, 0),
        Effect::Ipi(2 << 56 | 0x4500),
        "INIT has no vector"
    );
    assert_eq!(lapic.write_page(0x300, 0x5, 0), Effect::None, "vector 5 cannot be sent");
    lapic.write_page(0x280, 0, 0);
    assert_eq!(lapic.read_page(0x280, 0), 1 << 5);
    lapic.write_page(0x280, 0, 0);
    assert_eq!(lapic.read_page(0x280, 0), 0);
    let mut lapic = x2apic();
    assert_eq!(lapic.write_msr(register::ICR, 3 << 32 | 0x41, 0), Ok(Effect::Ipi(3 << 32 | 0x41)));
}

#[test]
fn the_kernel_sees_routes_only_of_an_enabled_apic() {
    use core::sync::atomic::Ordering::Relaxed;
    let mut lapic = Lapic::new(0, CLOCK, page());
    let mut routes = [0; 64];
    routes[9] = 0x99;
    lapic.set_routes(routes);
    let shown = |lapic: &Lapic| lapic.page.routes[9].load(Relaxed);
    assert_eq!(shown(&lapic), 0);
    lapic.take_signal(1 << 9);
    lapic.write_page(0xf0, 0x1ff, 0);
    assert_eq!((shown(&lapic), lapic.has_requests()), (0x99, false));
    lapic.take_signal(1 << 9);
    assert_eq!(lapic.deliverable(), Some(0x99));
    lapic.init();
    assert_eq!((shown(&lapic), lapic.has_requests()), (0, false));
    lapic.write_page(0xf0, 0x1ff, 0);
    assert_eq!(shown(&lapic), 0x99, "INIT leaves the devices alone");
    assert_eq!(lapic.page.x2apic.load(Relaxed), 0);
    assert!(lapic.set_base(BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC));
    assert_eq!(lapic.page.x2apic.load(Relaxed), 1);
}

#[test]
fn init_keeps_the_base() {
    let mut lapic = x2apic();
    lapic.accept(0x55, false);
    lapic.init();
    assert!(lapic.is_x2apic() && !lapic.has_requests() && !lapic.is_software_enabled());
}

proptest! {
    /// Whatever a guest writes where, invariants hold: what is deliverable is above the processor priority, and time never stands still.
    #[test]
    fn survives_anything(operations in prop::collection::vec((any::<u8>(), 0u64..0x400, any::<u64>(), 0u64..1_000_000), 1..300)) {
        let mut lapic = enabled();
        let mut now = 0;
        for (kind, place, value, step) in operations {
            now += step;
            match kind % 8 {
                0 => { lapic.write_page(place << 2, value as u32, now); }
                1 => { lapic.read_page(place << 2, now); }
                2 => { let _ = lapic.write_msr(place as u32, value, now); }
                3 => { let _ = lapic.read_msr(place as u32, now); }
                4 => lapic.accept(value as u8, value & 256 != 0),
                5 => if let Some(vector) = lapic.deliverable() { lapic.deliver(vector) },
                6 => lapic.set_tsc_deadline(value, place << 54),
                _ => { lapic.end(); }
            }
            if let Some(vector) = lapic.deliverable() {
                prop_assert!(vector >= 16 && vector & 0xf0 > lapic.ppr() & 0xf0);
            }
            lapic.run_timer(now);
            prop_assert!(lapic.deadline() > now);
        }
    }
}
