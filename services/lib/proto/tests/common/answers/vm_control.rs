//! Answers of `vm_control`.

use super::super::*;

impl vm_control::Server for Example {
    fn agent_write(&mut self, _: &mut Call, data: &[u8]) -> Result<u32, Failure> {
        self.note(format!("agent_write {data:?}"))?;
        Ok(300)
    }
    fn agent_read(&mut self, _: &mut Call) -> Result<AgentOutput, Failure> {
        self.note("agent_read")?;
        Ok(AgentOutput {
            open: true,
            data: vec![0xff, 1, 2],
        })
    }
    fn info(&mut self, _: &mut Call) -> Result<VmInfo, Failure> {
        self.note("info")?;
        Ok(VmInfo {
            panics: 1,
            watchdog_timeouts: 2,
            state: RunState::Failed,
            vcpus: vec![VcpuRunState::Halted, VcpuRunState::WaitForStart],
            started_tsc: 1,
            resets: 2,
            report: "report".into(),
        })
    }
    fn exits(&mut self, _: &mut Call, vcpu: u32) -> Result<VcpuExits, Failure> {
        self.note(format!("exits {vcpu}"))?;
        let exits = vec![ExitCount {
            reason: 1,
            count: 200,
            ticks: 3000,
        }];
        Ok(VcpuExits {
            exits,
            in_kernel: 1,
            doorbells: 2,
            guest_ticks: 3,
            injected: 4,
        })
    }
    fn memory(&mut self, _: &mut Call) -> Result<VmMemory, Failure> {
        self.note("memory")?;
        Ok(VmMemory {
            ram: 1,
            pages: [70, 80, 90],
            target: 2,
            given_up: 3,
            free: Some(4),
            total: Some(5),
            available: None,
            caches: Some(300),
            swapped_in: None,
            swapped_out: Some(6),
            major_faults: None,
        })
    }
    fn set_balloon(&mut self, _: &mut Call, bytes: u64) -> Result<(), Failure> {
        self.note(format!("set_balloon {bytes}"))
    }
    fn suspend(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("suspend")
    }
    fn registers(&mut self, _: &mut Call, vcpu: u32) -> Result<Registers, Failure> {
        self.note(format!("registers {vcpu}"))?;
        let segment = SegmentRegister {
            selector: 0x10,
            attributes: 0xa09b,
            limit: 0xffff_ffff,
            base: 0x1000,
        };
        Ok(Registers {
            state: VcpuRunState::Running,
            gpr: core::array::from_fn(|index| index as u64),
            rip: 0x100,
            rflags: 2,
            cr0: 0x8000_0011,
            cr2: 3,
            cr3: 0x1000,
            cr4: 0x20,
            cr8: 4,
            efer: 0x500,
            segments: [segment; 8],
            gdtr: (5, 6),
            idtr: (7, 8),
            exit: 9,
            code: vec![0xf4, 0xeb, 0xfe],
        })
    }
    fn power_button(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("power_button")
    }
    fn reset(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("reset")
    }
    fn inject_nmi(&mut self, _: &mut Call, vcpu: u32) -> Result<(), Failure> {
        self.note(format!("inject_nmi {vcpu}"))
    }
}
