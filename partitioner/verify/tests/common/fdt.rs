//! Writes small flattened device trees for the tests.

/// A node: name, properties, children.
#[derive(Clone, Default)]
pub struct Node {
    pub name: String,
    pub properties: Vec<(String, Vec<u8>)>,
    pub children: Vec<Node>,
}

impl Node {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn cells(mut self, name: &str, cells: &[u32]) -> Self {
        self.properties.push((name.into(), cells.iter().flat_map(|c| c.to_be_bytes()).collect()));
        self
    }

    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.properties.push((name.into(), [text.as_bytes(), b"\0"].concat()));
        self
    }

    pub fn child(mut self, child: Node) -> Self {
        self.children.push(child);
        self
    }

    /// The child with this name.
    pub fn get(&mut self, name: &str) -> &mut Node {
        self.children.iter_mut().find(|c| c.name == name).expect("the test's tree has this node")
    }

    /// Replaces a property.
    pub fn set(&mut self, name: &str, cells: &[u32]) {
        self.properties.retain(|(n, _)| n != name);
        self.properties.push((name.into(), cells.iter().flat_map(|c| c.to_be_bytes()).collect()));
    }

    /// The tree with this root, version 17.
    pub fn flatten(&self) -> Vec<u8> {
        let (mut structure, mut strings) = (Vec::new(), Vec::new());
        self.write(&mut structure, &mut strings);
        structure.extend(9u32.to_be_bytes());
        let strings_at = 56 + structure.len();
        let total = strings_at + strings.len();
        let header =
            [0xD00D_FEED, total, 56, strings_at, 40, 17, 16, 0, strings.len(), structure.len()].map(|v| v as u32);
        let mut out: Vec<u8> = header.iter().flat_map(|v| v.to_be_bytes()).collect();
        out.extend([0; 16]);
        out.extend(structure);
        out.extend(strings);
        out
    }

    fn write(&self, structure: &mut Vec<u8>, strings: &mut Vec<u8>) {
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
        structure.extend(1u32.to_be_bytes());
        structure.extend(self.name.as_bytes());
        structure.push(0);
        pad(structure);
        for (name, value) in &self.properties {
            structure.extend(3u32.to_be_bytes());
            structure.extend((value.len() as u32).to_be_bytes());
            structure.extend((strings.len() as u32).to_be_bytes());
            strings.extend(name.as_bytes());
            strings.push(0);
            structure.extend(value);
            pad(structure);
        }
        for child in &self.children {
            child.write(structure, strings);
        }
        structure.extend(2u32.to_be_bytes());
    }
}
