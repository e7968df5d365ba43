//! The bridges of Intel's Q35 and ICH9, as far as firmware looks at them and programs them (Intel 3 Series Express Chipset datasheet 5.1, ICH9 datasheet 13.1).

use super::function::Function;
use crate::devices::power;

/// Register with the base of the window to configuration space.
const WINDOW_BASE: usize = 0x60 / 4;
/// It is there.
const WINDOW_ENABLE: u32 = 1;
/// Bits of its address below 4 GiB.
const WINDOW_ADDRESS: u32 = 0xf000_0000;
/// Its length: one MiB for each of 256 buses.
pub const WINDOW: u64 = 256 << 20;
/// Device number of the ISA bridge.
pub const ISA_SLOT: u8 = 31;
/// Other functions are in the same device.
const SEVERAL_FUNCTIONS: u32 = 0x80 << 16;

/// 8086:29c0. What stands at the PC's BIOS area is RAM from the start, whatever the guest writes to the attribute registers. They say "read from flash memory" after power-on, so that SeaBIOS, which is
/// longer than the BIOS area, copies all of itself.
pub const fn host_bridge() -> Function {
    let mut function = Function::new(0, 0x8086, 0x29c0, 0x0600_0000);
    function.set_register(WINDOW_BASE, 0, WINDOW_ADDRESS | 7);
    function.set_register(WINDOW_BASE + 1, 0, 0xf);
    // Attributes of 0xf0000, of 0xc0000 to 0xcbfff; of 0xcc000 to 0xeffff.
    function.set_register(0x90 / 4, 0, 0x3333_3330);
    function.set_register(0x94 / 4, 0, 0x0033_3333);
    // Compatible SMRAM: closed.
    function.set_register(0x9c / 4, 0x0200, 0x7000);
    function
}

/// Where the window to configuration space is, if firmware opened it.
pub fn window(host_bridge: &Function) -> Option<u64> {
    let base = host_bridge.read(WINDOW_BASE);
    (base & WINDOW_ENABLE != 0 && host_bridge.read(WINDOW_BASE + 1) == 0).then_some((base & WINDOW_ADDRESS).into())
}

/// 8086:2918. Power management stays where it is; interrupts of devices are wired to lines, whatever the guest writes to the routing registers.
pub const fn isa_bridge() -> Function {
    let mut function = Function::new(ISA_SLOT, 0x8086, 0x2918, 0x0601_0002);
    function.set_register(3, SEVERAL_FUNCTIONS, 0);
    function.set_register(0x40 / 4, power::EVENT as u32 | 1, 0);
    function.set_register(0x44 / 4, 0x80, 0x87);
    function.set_register(0x60 / 4, 0x8080_8080, 0x8f8f_8f8f);
    function.set_register(0x68 / 4, 0x8080_8080, 0x8f8f_8f8f);
    // Root complex registers: nothing answers there.
    function.set_register(0xf0 / 4, 0, 0xffff_c001);
    function
}
