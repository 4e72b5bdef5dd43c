//! The values of a pickle.

use super::{Handle, MAX_COPIES, Node};

/// All values of a pickle that is being read, addressed by [`Handle`].
pub(super) struct Arena<'a> {
    nodes: Vec<Node<'a>>,
    /// Pairs that calls have copied.
    copied: usize,
}

impl<'a> Arena<'a> {
    /// An arena whose handle 0 is `first`.
    pub fn new(first: Node<'a>) -> Self {
        Self { nodes: vec![first], copied: 0 }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, handle: Handle) -> &Node<'a> {
        self.nodes.get(handle as usize).unwrap_or(&Node::None)
    }

    pub fn node_mut(&mut self, handle: Handle) -> Option<&mut Node<'a>> {
        self.nodes.get_mut(handle as usize)
    }

    /// Adds a value. Its index fits a handle, because the number of values is limited.
    pub fn add(&mut self, node: Node<'a>) -> Handle {
        self.nodes.push(node);
        (self.nodes.len() - 1) as Handle
    }

    /// Counts pairs that a call copies; an error beyond [`MAX_COPIES`].
    pub fn count_copies(&mut self, pairs: usize) -> Result<(), String> {
        self.copied += pairs;
        if self.copied > MAX_COPIES {
            return Err(format!("its calls copy more than {MAX_COPIES} pairs"));
        }
        Ok(())
    }

    pub fn into_nodes(self) -> Vec<Node<'a>> {
        self.nodes
    }
}
