//! Draws a placed graph.

use super::{Graph, Hold, Layout, layout::metric};
use std::fmt::Write;

/// One colour for each holder, tellable apart with any kind of colour vision (Okabe and Ito, darkened for thin lines).
const COLOURS: [&str; 7] = ["#4a4a4a", "#0072b2", "#c04f00", "#00805f", "#a8487f", "#8a6d00", "#2f86b8"];

const STYLE: &str = "text{font-family:'DejaVu Sans',Verdana,sans-serif;font-size:13px;fill:#1d2430}.h1{font-size:22px;font-weight:bold}\
.h2{font-size:15px;font-weight:bold}.small{font-size:11.5px;fill:#566070}.section{font-size:12px;font-weight:bold;fill:#566070;letter-spacing:.06em}";

/// Text that is safe in XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Text that fits into `width` pixels at some 7.4 pixels a character.
fn fit(text: &str, width: f64) -> String {
    let most = (width / 7.4).max(4.0) as usize;
    if text.chars().count() <= most {
        escape(text)
    } else {
        format!("{}…", escape(&text.chars().take(most - 1).collect::<String>()))
    }
}

/// Writes to a string cannot fail.
macro_rules! put {
    ($out:expr, $($argument:tt)*) => { let _ = writeln!($out, $($argument)*); };
}

/// The whole drawing.
pub fn draw(graph: &Graph, layout: &Layout) -> String {
    let mut out = String::new();
    let (width, height) = (layout.width, layout.height);
    put!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">"
    );
    put!(
        out,
        "<title>Capability graph of {}</title>\n<style>{STYLE}</style>",
        escape(&graph.title)
    );
    put!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>");
    header(&mut out, graph, layout);
    edges(&mut out, graph, layout);
    machines(&mut out, graph, layout);
    holders(&mut out, graph, layout);
    resources(&mut out, graph, layout);
    out.push_str("</svg>\n");
    out
}

fn header(out: &mut String, graph: &Graph, layout: &Layout) {
    let (x, y) = (metric::MARGIN, metric::MARGIN);
    put!(
        out,
        "<text class=\"h1\" x=\"{x}\" y=\"{}\">{}: who holds what</text>",
        y + 20.0,
        escape(&graph.title)
    );
    put!(
        out,
        "<text class=\"small\" x=\"{x}\" y=\"{}\">A line is a capability. What has no line cannot be reached.</text>",
        y + 44.0
    );
    // The legend stands above the resources.
    let x = layout.resources.first().map_or(layout.width / 2.0, |rect| rect.x);
    for (row, (hold, text)) in [
        (Hold::Uses, "may call, read or write it"),
        (Hold::Provides, "receives there: provides the service"),
        (Hold::OnRequest, "may ask init for it"),
        (Hold::Always, "given to every server"),
    ]
    .into_iter()
    .enumerate()
    {
        let y = y + 4.0 + 18.0 * row as f64;
        line(out, "#566070", hold, (x, y), (x + 56.0, y));
        put!(out, "<text class=\"small\" x=\"{}\" y=\"{}\">{text}</text>", x + 66.0, y + 4.0);
    }
}

/// A line from a holder to a resource, with an arrow head at the end that is acted on.
fn line(out: &mut String, colour: &str, hold: Hold, from: (f64, f64), to: (f64, f64)) {
    let style = match hold {
        Hold::Uses => "stroke-width=\"1.6\"",
        Hold::Provides => "stroke-width=\"3\"",
        Hold::OnRequest => "stroke-width=\"1.4\" stroke-dasharray=\"7 4\"",
        Hold::Always => "stroke-width=\"1\" stroke-dasharray=\"3 4\" opacity=\"0.7\"",
    };
    let bend = (to.0 - from.0) * 0.5;
    put!(
        out,
        "<path d=\"M{:.1} {:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}\" fill=\"none\" stroke=\"{colour}\" {style}/>",
        from.0,
        from.1,
        from.0 + bend,
        from.1,
        to.0 - bend,
        to.1,
        to.0,
        to.1
    );
    let (tip, back) = match hold {
        Hold::Provides => (from, 9.0),
        _ => (to, -9.0),
    };
    put!(out, "<path d=\"M{:.1} {:.1}l{back} -4.5v9z\" fill=\"{colour}\"/>", tip.0, tip.1);
}

fn edges(out: &mut String, graph: &Graph, layout: &Layout) {
    // Lines that everybody has lie below the others.
    for always in [true, false] {
        for (edge, (from, to)) in graph
            .edges
            .iter()
            .zip(&layout.edges)
            .filter(|(edge, _)| (edge.hold == Hold::Always) == always)
        {
            let holder = &layout.holders[edge.holder];
            let colour = COLOURS[edge.holder % COLOURS.len()];
            line(
                out,
                colour,
                edge.hold,
                (holder.x + holder.width, *from),
                (layout.resources[edge.resource].x, *to),
            );
        }
    }
    for machine in &layout.machines {
        for (holder, rect) in graph.holders.iter().zip(&layout.holders).filter(|(holder, _)| holder.per_vm) {
            let (x, y) = (machine.x + machine.width, machine.y + machine.height / 2.0);
            let bend = (rect.x - x) * 0.5;
            let target = rect.y + metric::TITLE / 2.0;
            put!(
                out,
                "<path d=\"M{x:.1} {y:.1}C{:.1} {y:.1} {:.1} {target:.1} {:.1} {target:.1}\" fill=\"none\" stroke=\"#9aa3b0\" stroke-width=\"1.4\" \
                 stroke-dasharray=\"6 4\"><title>one {} for each virtual machine</title></path>",
                x + bend,
                rect.x - bend,
                rect.x,
                escape(&holder.name)
            );
        }
    }
}

fn machines(out: &mut String, graph: &Graph, layout: &Layout) {
    for (machine, rect) in graph.machines.iter().zip(&layout.machines) {
        let (x, y) = (rect.x, rect.y);
        put!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"10\" fill=\"#f3f0fa\" stroke=\"#8d7fb5\" stroke-width=\"1.5\"/>",
            rect.width,
            rect.height
        );
        put!(
            out,
            "<text class=\"h2\" x=\"{}\" y=\"{}\">{}</text>",
            x + 14.0,
            y + 24.0,
            fit(&machine.name, rect.width - 28.0)
        );
        for (row, detail) in machine.details.iter().enumerate() {
            let y = y + 44.0 + 18.0 * row as f64;
            put!(
                out,
                "<text class=\"small\" x=\"{}\" y=\"{y}\">{}</text>",
                x + 14.0,
                fit(detail, rect.width)
            );
        }
    }
}

fn holders(out: &mut String, graph: &Graph, layout: &Layout) {
    for (index, (holder, rect)) in graph.holders.iter().zip(&layout.holders).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let (x, y, width, height) = (rect.x, rect.y, rect.width, rect.height);
        if holder.per_vm {
            // One behind the other: there are several.
            put!(
                out,
                "<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"{colour}\" stroke-opacity=\"0.5\"/>",
                x - 6.0,
                y + 6.0
            );
        }
        put!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"1.8\"/>"
        );
        put!(
            out,
            "<path d=\"M{x} {:.1}v-38a8 8 0 0 1 8 -8h{:.1}a8 8 0 0 1 8 8v38z\" fill=\"{colour}\" fill-opacity=\"0.1\"/>",
            y + 46.0,
            width - 16.0
        );
        let name = if holder.per_vm {
            format!("{}.VM", holder.name)
        } else {
            holder.name.clone()
        };
        put!(
            out,
            "<text class=\"h2\" x=\"{}\" y=\"{}\">{}</text>",
            x + 14.0,
            y + 20.0,
            fit(&name, width / 2.0)
        );
        let note = if holder.per_vm {
            format!("{}, one for each VM", holder.note)
        } else {
            holder.note.clone()
        };
        put!(
            out,
            "<text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            x + width - 14.0,
            y + 20.0,
            escape(&note)
        );
        put!(
            out,
            "<text class=\"small\" x=\"{}\" y=\"{}\">{}</text>",
            x + 14.0,
            y + 38.0,
            fit(&holder.details, width + 60.0)
        );
    }
    for (edge, (y, _)) in graph.edges.iter().zip(&layout.edges) {
        let rect = &layout.holders[edge.holder];
        let class = if edge.hold == Hold::Always { " class=\"small\"" } else { "" };
        put!(
            out,
            "<text{class} x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            rect.x + rect.width - 16.0,
            y + 4.5,
            fit(&edge.name, rect.width - 30.0)
        );
    }
}

fn resources(out: &mut String, graph: &Graph, layout: &Layout) {
    for (section, y) in &layout.sections {
        let x = layout.resources.first().map_or(0.0, |rect| rect.x);
        put!(
            out,
            "<text class=\"section\" x=\"{x}\" y=\"{}\">{}</text>",
            y + 22.0,
            section.title().to_uppercase().replace('\'', "’")
        );
    }
    for (resource, rect) in graph.resources.iter().zip(&layout.resources) {
        put!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{:.1}\" fill=\"#f6f8fa\" stroke=\"#9aa3b0\"/>",
            rect.x,
            rect.y,
            rect.width,
            rect.height,
            metric::PILL / 2.0
        );
        put!(
            out,
            "<text x=\"{}\" y=\"{}\">{}</text>",
            rect.x + 18.0,
            rect.y + rect.height / 2.0 + 4.5,
            fit(&resource.title, rect.width - 24.0)
        );
    }
}
