//! The processor without long mode: protected mode, tasks, virtual-8086 mode, real mode. The code is in `legacy.s` and `real.s`; each part answers 0, or the number of
//! the step that went wrong.

use crate::{machine, report::Outcome, same, start::Test};

core::arch::global_asm!(include_str!("legacy.s"));
core::arch::global_asm!(include_str!("real.s"), options(att_syntax));

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("legacy-mode-and-back", || run(legacy_nothing as *const () as u64)),
    ("task-call-and-return", || run(legacy_task_call as *const () as u64)),
    ("task-jump", || run(legacy_task_jump as *const () as u64)),
    ("task-gate", || run(legacy_task_gate as *const () as u64)),
    ("task-refusals", || run(legacy_task_refusals as *const () as u64)),
    ("protected-mode-segments", || run(legacy_segments as *const () as u64)),
    ("protected-mode-limits", || run(legacy_limits as *const () as u64)),
    ("virtual-8086-mode", || run(legacy_vm86 as *const () as u64)),
    ("real-mode", || run(legacy_real as *const () as u64)),
];

unsafe extern "C" {
    fn legacy(function: u64) -> u64;
    fn legacy_nothing();
    fn legacy_task_call();
    fn legacy_task_jump();
    fn legacy_task_gate();
    fn legacy_task_refusals();
    fn legacy_segments();
    fn legacy_limits();
    fn legacy_vm86();
    fn legacy_real();
    static real_start: u8;
    static real_end: u8;
}

fn run(function: u64) -> Outcome {
    let (from, end) = (core::ptr::addr_of!(real_start) as u64, core::ptr::addr_of!(real_end) as u64);
    for i in 0..end - from {
        machine::poke(0x9000 + i, machine::peek::<u8>(from + i));
    }
    // SAFETY: it comes back with everything as it was.
    let step = unsafe { legacy(function) };
    machine::load_idt();
    same!(step, 0, "step");
    Ok(())
}
