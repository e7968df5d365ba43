//! Answers of `iommu`.

use super::super::*;

impl iommu::Server for Example {
    fn info(&mut self, _: &mut Call) -> Result<IommuInfo, Failure> {
        self.note("info")?;
        Ok(IommuInfo {
            kind: IommuKind::Vtd,
            reason: String::new(),
            units: 2,
            address_bits: 48,
            interrupts_remapped: true,
            table_pages: 300,
            faults: 7,
        })
    }
    fn domains(&mut self, _: &mut Call, first: u32) -> Result<Page<DomainInfo>, Failure> {
        self.note(format!("domains {first}"))?;
        Ok(Page {
            items: vec![DomainInfo {
                server: "storage".into(),
                device_memory: 4 << 20,
                guest_memory: 256 << 20,
                reserved: 4096,
                table_pages: 9,
                functions: vec!["0000:00:04.0".into()],
            }],
            next: None,
        })
    }
    fn faults(&mut self, _: &mut Call, first: u32) -> Result<Page<FaultInfo>, Failure> {
        self.note(format!("faults {first}"))?;
        Ok(Page {
            items: vec![FaultInfo {
                tsc: 1 << 40,
                function: "0000:00:04.0".into(),
                server: "storage".into(),
                address: Some(0x1234_5000),
                kind: AccessKind::Write,
                reason: 5,
                count: 3,
            }],
            next: Some(4),
        })
    }
}
