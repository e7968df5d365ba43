//! Media that guests boot from.

use crate::{Context, Failure, Result, initramfs};
use std::{fs, path::PathBuf, process::Command};

/// What a medium boots.
#[derive(Clone, Copy, Debug)]
pub struct Medium<'a> {
    /// Which of the guests' Debian kernels.
    pub kernel: &'a str,
    /// Modules of its.
    pub modules: &'a [&'a str],
    /// The mode in which the kernel finds the screen, and has its console there too; `None`: as it is.
    pub graphics: Option<&'a str>,
}

impl<'a> Medium<'a> {
    /// A kernel without modules.
    #[must_use]
    pub const fn new(kernel: &'a str) -> Self {
        Self {
            kernel,
            modules: &[],
            graphics: None,
        }
    }
}

/// A medium for disk and CD-ROM drive, BIOS and UEFI, on which GRUB says a word and boots one of the guests' Debian kernels with modules of its. The inner error: what is missing for it.
///
/// # Errors
/// It cannot be made.
pub fn bootable(context: &Context, kernel: &str, modules: &[&str]) -> Result<Result<PathBuf, String>> {
    make(
        context,
        &Medium {
            modules,
            ..Medium::new(kernel)
        },
    )
}

/// As [`bootable`], with more to choose.
///
/// # Errors
/// It cannot be made.
pub fn make(context: &Context, medium: &Medium<'_>) -> Result<Result<PathBuf, String>> {
    let Medium { kernel, modules, graphics } = *medium;
    let image = format!("{kernel}/vmlinuz");
    let files = [(&*image, "vmlinuz"), ("initramfs.cpio", "initramfs")];
    let modules = match context.guest_file(&format!("{kernel}/modules")) {
        Ok(folder) => initramfs::modules(&folder, modules)?,
        Err(missing) => return Ok(Err(missing)),
    };
    let root = context.environment.logs.join(format!("{}.medium", context.name.replace('/', "-")));
    let grub = root.join("boot/grub");
    fs::create_dir_all(&grub)?;
    for (from, to) in files {
        match context.guest_file(from) {
            Ok(path) => drop(fs::copy(path, root.join(to))?),
            Err(missing) => return Ok(Err(missing)),
        }
    }
    fs::write(root.join("modules"), modules)?;
    fs::write(
        grub.join("grub.cfg"),
        format!(
            "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\necho GRUB-IS-HERE\n{}\
             linux /vmlinuz {}console=ttyS0 quiet\ninitrd /initramfs /modules\nboot\n",
            graphics
                .map(|mode| format!("insmod all_video\nset gfxpayload={mode}\n"))
                .unwrap_or_default(),
            if graphics.is_some() { "console=tty0 " } else { "" },
        ),
    )?;
    let path = root.with_extension("iso");
    let made = Command::new("grub-mkrescue").arg("-o").arg(&path).arg(&root).output();
    fs::remove_dir_all(&root)?;
    match made {
        Ok(output) if output.status.success() => Ok(Ok(path)),
        Ok(output) => Err(Failure::new(format!("grub-mkrescue: {}", String::from_utf8_lossy(&output.stderr)))),
        Err(error) => Ok(Err(format!("grub-mkrescue: {error}: run `make setup`"))),
    }
}
