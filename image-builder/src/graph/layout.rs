//! Where things stand: machines on the left, holders in the middle with one row for each capability, resources on the right by section. Resources stand near
//! their holders, rows in the order of what they lead to, so that lines cross little.

use super::{Graph, Hold, Section};

/// Widths and heights, in pixels.
pub mod metric {
    /// Around everything.
    pub const MARGIN: f64 = 32.0;
    /// Title and legend.
    pub const HEADER: f64 = 84.0;
    /// Between machines and holders.
    pub const GAP_MACHINES: f64 = 90.0;
    /// Between holders and resources, where the lines run.
    pub const GAP_LINES: f64 = 240.0;
    /// Width of a machine's box.
    pub const MACHINE: f64 = 230.0;
    /// Width of a holder's box.
    pub const HOLDER: f64 = 360.0;
    /// Width of a resource's box.
    pub const RESOURCE: f64 = 280.0;
    /// Title and details of a holder.
    pub const TITLE: f64 = 52.0;
    /// A row.
    pub const ROW: f64 = 24.0;
    /// Below the last row.
    pub const FOOT: f64 = 10.0;
    /// Between boxes.
    pub const SPACE: f64 = 28.0;
    /// A resource's box with one line; each further one needs more.
    pub const PILL: f64 = 34.0;
    /// Each further line.
    pub const LINE: f64 = 12.0;
    /// Between resources.
    pub const PILL_SPACE: f64 = 12.0;
    /// A section's heading.
    pub const SECTION: f64 = 34.0;
}

/// A box.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Rect {
    /// Lower edge.
    #[must_use]
    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }

    /// Whether two boxes share a point.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.width && other.x < self.x + self.width && self.y < other.bottom() && other.y < self.bottom()
    }
}

/// All places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// Whole drawing.
    pub width: f64,
    /// Whole drawing.
    pub height: f64,
    /// Of machines.
    pub machines: Vec<Rect>,
    /// Of holders.
    pub holders: Vec<Rect>,
    /// Of resources.
    pub resources: Vec<Rect>,
    /// Headings: section and upper edge.
    pub sections: Vec<(Section, f64)>,
    /// For each edge: height at the holder and at the resource.
    pub edges: Vec<(f64, f64)>,
}

impl Layout {
    /// Places a graph.
    #[must_use]
    pub fn new(graph: &Graph) -> Self {
        let machines_width = if graph.machines.is_empty() {
            0.0
        } else {
            metric::MACHINE + metric::GAP_MACHINES
        };
        let holders_x = metric::MARGIN + machines_width;
        let resources_x = holders_x + metric::HOLDER + metric::GAP_LINES;
        let mut layout = Self {
            width: resources_x + metric::RESOURCE + metric::MARGIN,
            ..Self::default()
        };
        let top = metric::MARGIN + metric::HEADER;

        let mut y = top;
        for holder in 0..graph.holders.len() {
            let rows = graph.edges.iter().filter(|edge| edge.holder == holder).count();
            let height = metric::TITLE + metric::ROW * rows as f64 + if rows > 0 { metric::FOOT } else { 0.0 };
            layout.holders.push(Rect {
                x: holders_x,
                y,
                width: metric::HOLDER,
                height,
            });
            y += height + metric::SPACE;
        }
        let holders_end = y - metric::SPACE;

        layout.place_resources(graph, resources_x, top);
        let resources_end = layout.resources.iter().map(Rect::bottom).fold(top, f64::max);
        // The shorter column is centred beside the longer one.
        let (shift_holders, shift_resources) = (
            ((resources_end - holders_end) / 2.0).max(0.0),
            ((holders_end - resources_end) / 2.0).max(0.0),
        );
        layout.holders.iter_mut().for_each(|rect| rect.y += shift_holders);
        layout.resources.iter_mut().for_each(|rect| rect.y += shift_resources);
        layout.sections.iter_mut().for_each(|(_, y)| *y += shift_resources);

        layout.place_machines(graph, top);
        layout.connect(graph);
        let boxes = layout.machines.iter().chain(&layout.holders).chain(&layout.resources);
        layout.height = boxes.map(Rect::bottom).fold(top, f64::max) + metric::MARGIN;
        layout
    }

    /// Resources by section; inside a section by the mean place of their holders, and sections by the mean of theirs.
    fn place_resources(&mut self, graph: &Graph, x: f64, top: f64) {
        let pull = |resource: usize| {
            // Lines that every server has would pull everything to the middle.
            let strong = |edge: &&super::Edge| edge.resource == resource && !matches!(edge.hold, Hold::Always | Hold::OnRequest);
            let heights: Vec<f64> = graph
                .edges
                .iter()
                .filter(strong)
                .map(|edge| self.holders[edge.holder].y + self.holders[edge.holder].height / 2.0)
                .collect();
            heights.iter().sum::<f64>() / heights.len().max(1) as f64
        };
        let mut sections: Vec<(f64, Section, Vec<usize>)> = Vec::new();
        for (index, resource) in graph.resources.iter().enumerate() {
            match sections.iter_mut().find(|(_, section, _)| *section == resource.section) {
                Some((_, _, members)) => members.push(index),
                None => sections.push((0.0, resource.section, vec![index])),
            }
        }
        for (mean, _, members) in &mut sections {
            members.sort_by(|&a, &b| pull(a).total_cmp(&pull(b)));
            *mean = members.iter().map(|&member| pull(member)).sum::<f64>() / members.len() as f64;
        }
        sections.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.resources = vec![Rect::default(); graph.resources.len()];
        let mut y = top;
        for (_, section, members) in sections {
            self.sections.push((section, y));
            y += metric::SECTION;
            for member in members {
                let lines = graph.edges.iter().filter(|edge| edge.resource == member).count();
                let height = metric::PILL + metric::LINE * lines.saturating_sub(1) as f64;
                self.resources[member] = Rect {
                    x,
                    y,
                    width: metric::RESOURCE,
                    height,
                };
                y += height + metric::PILL_SPACE;
            }
            y += metric::SPACE - metric::PILL_SPACE;
        }
    }

    /// Machines beside the servers that are started for them.
    fn place_machines(&mut self, graph: &Graph, top: f64) {
        let servers: Vec<&Rect> = graph
            .holders
            .iter()
            .zip(&self.holders)
            .filter(|(holder, _)| holder.per_vm)
            .map(|(_, rect)| rect)
            .collect();
        let heights: Vec<f64> = graph
            .machines
            .iter()
            .map(|machine| 34.0 + 18.0 * machine.details.len() as f64 + metric::FOOT)
            .collect();
        let total = heights.iter().sum::<f64>() + metric::SPACE * heights.len().saturating_sub(1) as f64;
        let middle = match (servers.first(), servers.last()) {
            (Some(first), Some(last)) => f64::midpoint(first.y, last.bottom()),
            _ => top + total / 2.0,
        };
        let mut y = (middle - total / 2.0).max(top);
        for height in heights {
            self.machines.push(Rect {
                x: metric::MARGIN,
                y,
                width: metric::MACHINE,
                height,
            });
            y += height + metric::SPACE;
        }
    }

    /// Rows at holders in the order of the resources they lead to, ends at resources in the order of the holders they come from.
    fn connect(&mut self, graph: &Graph) {
        self.edges = vec![(0.0, 0.0); graph.edges.len()];
        for (holder, rect) in self.holders.iter().enumerate() {
            let mut own: Vec<usize> = (0..graph.edges.len()).filter(|&edge| graph.edges[edge].holder == holder).collect();
            own.sort_by(|&a, &b| {
                self.resources[graph.edges[a].resource]
                    .y
                    .total_cmp(&self.resources[graph.edges[b].resource].y)
            });
            for (row, edge) in own.into_iter().enumerate() {
                self.edges[edge].0 = rect.y + metric::TITLE + metric::ROW * (row as f64 + 0.5);
            }
        }
        for (resource, rect) in self.resources.iter().enumerate() {
            let mut own: Vec<usize> = (0..graph.edges.len())
                .filter(|&edge| graph.edges[edge].resource == resource)
                .collect();
            own.sort_by(|&a, &b| self.edges[a].0.total_cmp(&self.edges[b].0));
            let count = own.len() as f64;
            for (place, edge) in own.into_iter().enumerate() {
                self.edges[edge].1 = rect.y + rect.height / 2.0 + metric::LINE * (place as f64 - (count - 1.0) / 2.0);
            }
        }
    }
}
