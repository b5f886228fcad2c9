//! What the Markdown writer needs of a tree: words that do not run together, tables with straight
//! columns, lists and quotes of a sane depth, no addresses that lead nowhere.

use dom_query::NodeRef;

/// Quotes and lists inside one another; each level is repeated on every line within.
const NESTED_CONTAINERS_MAX: usize = 8;

/// Columns up to which spanning cells are filled in.
const COLUMNS_MAX: usize = 64;

/// Empty cells that may be added to one page.
const CELLS_ADDED_MAX: usize = 20_000;

/// Bytes of a link's address; a longer one would fill the passage.
const ADDRESS_BYTES_MAX: usize = 200;

/// Blocks that the writer takes for inline text, so that their words would run together.
const BLOCKS: [&str; 19] = [
    "address",
    "aside",
    "center",
    "dd",
    "details",
    "dialog",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "header",
    "hgroup",
    "legend",
    "main",
    "option",
    "search",
    "summary",
];

/// Prepares everything below `root`.
pub(super) fn tidy(root: &NodeRef, skipped: &[&str]) {
    let mut tables = Vec::new();
    let mut open: Vec<(NodeRef, usize)> = vec![(*root, 0)];
    while let Some((node, mut containers)) = open.pop() {
        let Some(name) = node.node_name() else {
            continue;
        };
        let name = name.as_ref();
        if skipped.contains(&name) {
            continue;
        }
        if is_hidden(&node) {
            node.remove_from_parent();
            continue;
        }
        match name {
            "blockquote" | "ul" | "ol" => {
                containers += 1;
                if containers > NESTED_CONTAINERS_MAX {
                    node.rename("div");
                }
            }
            "menu" | "dir" => node.rename("ul"),
            "a" if !has_useful_address(&node) => node.rename("span"),
            "img" => {
                let alternative = node.attr("alt").unwrap_or_default();
                node.replace_with(&node.tree.new_text(alternative));
                continue;
            }
            "table" => tables.push(node),
            "caption" => {
                // The writer knows rows only.
                node.rename("p");
                if let Some(table) = node.parent().filter(|parent| parent.has_name("table")) {
                    table.insert_before(&node);
                }
            }
            "td" | "th" => node.insert_after(&node.tree.new_text(" ")),
            _ if BLOCKS.contains(&name) => node.rename("div"),
            _ => {}
        }
        open.extend(node.children_it(false).map(|child| (child, containers)));
    }
    let mut budget = CELLS_ADDED_MAX;
    for table in tables {
        straighten(&table, &mut budget);
    }
}

fn is_hidden(node: &NodeRef) -> bool {
    node.has_attr("hidden")
        || node.attr("style").is_some_and(|style| {
            let style: String = style.split_whitespace().collect();
            style.to_ascii_lowercase().contains("display:none")
        })
}

fn has_useful_address(link: &NodeRef) -> bool {
    link.attr("href").is_some_and(|address| {
        address.len() <= ADDRESS_BYTES_MAX
            && ["https://", "http://", "mailto:"].iter().any(|scheme| address.starts_with(scheme))
    })
}

/// Gives every row as many cells as the widest has, with empty ones where a cell spans.
fn straighten(table: &NodeRef, budget: &mut usize) {
    let rows = table.find(&["tr"]);
    // Rows still covered from above, by column.
    let mut covered: Vec<usize> = Vec::new();
    let mut widths = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut column = 0;
        // Collected, because the tree must not be borrowed while it changes.
        let cells: Vec<_> = row.children_it(false).filter(is_cell).collect();
        for cell in cells {
            while take_covered(&mut covered, column) && spend(budget) {
                cell.insert_before(&cell.tree.new_element("td"));
                column += 1;
            }
            let columns = span(&cell, "colspan").min(COLUMNS_MAX);
            let rows = span(&cell, "rowspan");
            for further in 0..columns {
                if further > 0 && spend(budget) {
                    cell.insert_after(&cell.tree.new_element("td"));
                }
                cover(&mut covered, column, rows - 1);
                column += 1;
            }
        }
        while take_covered(&mut covered, column) && spend(budget) {
            row.append_child(&row.tree.new_element("td"));
            column += 1;
        }
        widths.push(row.children_it(false).filter(is_cell).count());
    }
    let widest = widths.iter().copied().max().unwrap_or(0);
    for (row, width) in rows.iter().zip(widths) {
        for _ in width..widest {
            if width > 0 && spend(budget) {
                row.append_child(&row.tree.new_element("td"));
            }
        }
    }
}

fn is_cell(node: &NodeRef) -> bool {
    node.has_name("td") || node.has_name("th")
}

fn span(cell: &NodeRef, attribute: &str) -> usize {
    let value = cell.attr(attribute);
    let value = value.and_then(|value| value.trim().parse().ok());
    value.unwrap_or(1).clamp(1, 1_000)
}

fn spend(budget: &mut usize) -> bool {
    let left = budget.checked_sub(1);
    *budget = left.unwrap_or(0);
    left.is_some()
}

fn cover(covered: &mut Vec<usize>, column: usize, rows: usize) {
    if column >= COLUMNS_MAX {
        return;
    }
    if covered.len() <= column {
        covered.resize(column + 1, 0);
    }
    if let Some(covered) = covered.get_mut(column) {
        *covered = rows;
    }
}

fn take_covered(covered: &mut [usize], column: usize) -> bool {
    match covered.get_mut(column) {
        Some(rows) if *rows > 0 => {
            *rows -= 1;
            true
        }
        _ => false,
    }
}
