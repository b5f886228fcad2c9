//! Parsing HTML under a budget.
//!
//! html5ever does what the standard says, and the standard has no limits: the tree builder scans its
//! stack of open elements for most tags, the tokenizer compares each attribute with all before it, and
//! unclosed formatting elements are opened again in every paragraph. So the page is fed in small pieces,
//! and after each piece the tree is measured; a page that exceeds a budget is refused after a few
//! kilobytes instead of minutes later.

use std::borrow::Cow;
use std::cell::{Cell, Ref, RefCell};

use dom_query::{Document, NodeId};
use html5ever::interface::{ElementFlags, NodeOrText, QuirksMode};
use html5ever::tendril::{StrTendril, TendrilSink as _};
use html5ever::tree_builder::{TreeBuilderOpts, TreeSink};
use html5ever::{Attribute, ParseOpts, QualName, parse_document};

use super::ExtractError;
use super::html_attributes::AttributeCount;

/// Elements inside one another. Real pages stay below 60; browsers stop at 512.
pub(super) const HTML_DEPTH_MAX: usize = 256;

/// Attributes of one tag; looking for duplicates is quadratic in it.
pub(super) const HTML_ATTRIBUTES_MAX: usize = 512;

/// Elements of one page. Five megabytes of ordinary markup make about 100,000.
pub(super) const HTML_ELEMENTS_MAX: usize = 250_000;

/// Bytes of one attribute or stretch of text that Readability is given: html5ever writes out one that
/// is full of `&` in quadratic time. Longer attributes are pictures, and are dropped.
pub(super) const RUN_BYTES_MAX: usize = 65_536;

/// Bytes between two looks at the tree, and so the most that is parsed past a limit.
const FEED_BYTES: usize = 2048;

/// Parses a whole page.
///
/// # Errors
/// `HtmlTooDeep`, `HtmlTooManyAttributes` or `HtmlTooManyElements`.
pub(super) fn parse(html: &str) -> Result<Document, ExtractError> {
    let options = ParseOpts {
        tree_builder: TreeBuilderOpts { scripting_enabled: false, ..TreeBuilderOpts::default() },
        ..ParseOpts::default()
    };
    let mut parser = parse_document(Budgeted::default(), options);
    let mut attributes = AttributeCount::default();
    let mut before = "";
    let mut rest = html;
    let mut seen = 0;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(FEED_BYTES));
        parser.process(StrTendril::from_slice(piece));
        rest = tail;

        let sink = &parser.tokenizer.sink.sink;
        sink.check()?;
        // No token came out of a whole piece: perhaps it is the middle of one enormous tag.
        if sink.tokens.get() == seen {
            if attributes.is_idle() {
                attributes.feed(before);
            }
            if attributes.feed(piece) > HTML_ATTRIBUTES_MAX {
                return Err(ExtractError::HtmlTooManyAttributes { limit: HTML_ATTRIBUTES_MAX });
            }
        } else {
            attributes = AttributeCount::default();
        }
        seen = sink.tokens.get();
        before = piece;
    }
    let sink = parser.finish();
    sink.check()?;
    Ok(sink.document)
}

/// A tree that is measured while it grows.
#[derive(Default)]
struct Budgeted {
    document: Document,
    /// What is known of each element, by its number.
    elements: RefCell<Vec<Measures>>,
    deepest: Cell<usize>,
    attributes: Cell<usize>,
    tokens: Cell<usize>,
}

/// A node and its number; `NodeId` does not show its own.
#[derive(Clone, Copy)]
struct Handle {
    id: NodeId,
    number: usize,
}

#[derive(Clone, Copy, Default)]
struct Measures {
    depth: usize,
    attributes: usize,
}

impl Budgeted {
    fn check(&self) -> Result<(), ExtractError> {
        if self.deepest.get() > HTML_DEPTH_MAX {
            return Err(ExtractError::HtmlTooDeep { limit: HTML_DEPTH_MAX });
        }
        if self.attributes.get() > HTML_ATTRIBUTES_MAX {
            return Err(ExtractError::HtmlTooManyAttributes { limit: HTML_ATTRIBUTES_MAX });
        }
        if self.elements.borrow().len() > HTML_ELEMENTS_MAX {
            return Err(ExtractError::HtmlTooManyElements { limit: HTML_ELEMENTS_MAX });
        }
        Ok(())
    }

    fn count_token(&self) {
        self.tokens.set(self.tokens.get().wrapping_add(1));
    }

    fn measures(&self, handle: Handle) -> Measures {
        let elements = self.elements.borrow();
        elements.get(handle.number).copied().unwrap_or_default()
    }

    fn number(&self, id: NodeId, measures: Measures) -> Handle {
        self.count_token();
        self.attributes.set(self.attributes.get().max(measures.attributes));
        self.deepest.set(self.deepest.get().max(measures.depth));
        let mut elements = self.elements.borrow_mut();
        elements.push(measures);
        Handle { id, number: elements.len() - 1 }
    }

    /// Notes the depth of a node and gives back what the tree wants.
    fn place(&self, depth: usize, child: NodeOrText<Handle>) -> NodeOrText<NodeId> {
        self.count_token();
        match child {
            NodeOrText::AppendText(text) => NodeOrText::AppendText(text),
            NodeOrText::AppendNode(node) => {
                self.deepest.set(self.deepest.get().max(depth));
                if let Some(measures) = self.elements.borrow_mut().get_mut(node.number) {
                    measures.depth = depth;
                }
                NodeOrText::AppendNode(node.id)
            }
        }
    }
}

impl TreeSink for Budgeted {
    type Handle = Handle;
    type Output = Self;
    type ElemName<'a> = Ref<'a, QualName>;

    fn finish(self) -> Self {
        self
    }

    fn parse_error(&self, _: Cow<'static, str>) {
        // Not kept: a hostile page has millions.
        self.count_token();
    }

    fn get_document(&self) -> Handle {
        self.number(self.document.get_document(), Measures::default())
    }

    fn elem_name<'a>(&'a self, target: &'a Handle) -> Ref<'a, QualName> {
        self.document.elem_name(&target.id)
    }

    fn create_element(&self, name: QualName, mut attrs: Vec<Attribute>, flags: ElementFlags) -> Handle {
        for attribute in &mut attrs {
            if attribute.value.len() > RUN_BYTES_MAX {
                attribute.value.clear();
            }
        }
        let measures = Measures { depth: 0, attributes: attrs.len() };
        self.number(self.document.create_element(name, attrs, flags), measures)
    }

    fn create_comment(&self, _: StrTendril) -> Handle {
        let comment = self.document.create_comment(StrTendril::new());
        self.number(comment, Measures::default())
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> Handle {
        self.create_comment(StrTendril::new())
    }

    fn append(&self, parent: &Handle, child: NodeOrText<Handle>) {
        let child = self.place(self.measures(*parent).depth + 1, child);
        self.document.append(&parent.id, child);
    }

    fn append_based_on_parent_node(&self, element: &Handle, previous: &Handle, child: NodeOrText<Handle>) {
        let beside = self.measures(*element).depth;
        let inside = self.measures(*previous).depth + 1;
        let child = self.place(beside.max(inside), child);
        self.document.append_based_on_parent_node(&element.id, &previous.id, child);
    }

    fn append_doctype_to_document(&self, name: StrTendril, public: StrTendril, system: StrTendril) {
        self.count_token();
        self.document.append_doctype_to_document(name, public, system);
    }

    fn get_template_contents(&self, target: &Handle) -> Handle {
        let contents = self.document.get_template_contents(&target.id);
        let measures = Measures { depth: self.measures(*target).depth + 1, attributes: 0 };
        self.number(contents, measures)
    }

    fn same_node(&self, x: &Handle, y: &Handle) -> bool {
        x.id == y.id
    }

    fn set_quirks_mode(&self, mode: QuirksMode) {
        self.document.set_quirks_mode(mode);
    }

    fn append_before_sibling(&self, sibling: &Handle, child: NodeOrText<Handle>) {
        let child = self.place(self.measures(*sibling).depth, child);
        self.document.append_before_sibling(&sibling.id, child);
    }

    fn add_attrs_if_missing(&self, target: &Handle, attrs: Vec<Attribute>) {
        self.count_token();
        let total = self.measures(*target).attributes + attrs.len();
        self.attributes.set(self.attributes.get().max(total));
        if let Some(measures) = self.elements.borrow_mut().get_mut(target.number) {
            measures.attributes = total;
        }
        if total <= HTML_ATTRIBUTES_MAX {
            self.document.add_attrs_if_missing(&target.id, attrs);
        }
    }

    fn remove_from_parent(&self, target: &Handle) {
        self.document.remove_from_parent(&target.id);
    }

    fn reparent_children(&self, node: &Handle, new_parent: &Handle) {
        self.count_token();
        self.document.reparent_children(&node.id, &new_parent.id);
    }

    fn is_mathml_annotation_xml_integration_point(&self, handle: &Handle) -> bool {
        self.document.is_mathml_annotation_xml_integration_point(&handle.id)
    }
}
