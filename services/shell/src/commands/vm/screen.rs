//! `vm screen` and `vm type`: what a machine shows, and its keyboard.

use super::{Context, Failure};
use crate::commands::Doing;
use alloc::{format, string::String};

/// Most rows of text that are asked for; a mode with more does not exist.
const MOST_ROWS: usize = 200;

/// Shows mode and size of a screen, and its text.
pub fn show(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let what = format!("look at the screen of {name}");
    let info = context.host.vm_screen(name).doing(&what)?;
    context.out.line(&format!(
        "{}, {} x {} pixels, {:016x}, {} viewers",
        info.mode, info.width, info.height, info.hash, info.viewers
    ));
    let mut text = String::new();
    let rows = (info.rows as usize).min(MOST_ROWS);
    while text.matches('\n').count() < rows {
        let part = context.host.vm_screen_text(name, text.matches('\n').count() as u32).doing(&what)?;
        if part.is_empty() {
            break;
        }
        text.push_str(&part);
    }
    for line in text.trim_end().lines() {
        context.out.line(line);
    }
    Ok(())
}

/// Types words at its keyboard.
pub fn type_text(context: &mut Context<'_>, name: &str, words: &[&str]) -> Result<(), Failure> {
    let text = words.join(" ");
    let taken = context.host.vm_type(name, &text).doing(&format!("type at {name}"))?;
    if (taken as usize) < text.len() {
        return Err(Failure::new(
            format!("{name} took only {taken} of {} bytes", text.len()),
            "Its guest does not read the keyboard now; try again later.",
        ));
    }
    Ok(())
}
