//! Intel VT-x: recognised, so that the boot log can say why no guest runs; there is no backend for it in this build.

/// Why VT-x is not used, if the processor has it.
#[cfg(target_os = "none")]
pub fn detect() -> Option<&'static str> {
    // CPUID leaf 1, ECX bit 5 (SDM volume 3, 24.6).
    let has_vmx = core::arch::x86_64::__cpuid(1).ecx & 1 << 5 != 0;
    has_vmx.then_some("VT-x: no backend in this build")
}
