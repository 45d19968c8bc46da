//! What each file in `src` names, re-exports and defines, as `syn` parses it.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, Macro, MetaList, UseTree, Visibility};

/// A path from the root of `src`: `["store", "lease", "LeaseRow"]`. The crate `core` counts as a folder of it.
pub(crate) type ModulePath = Vec<String>;

/// One path that a file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) path: ModulePath,
    pub(crate) in_tests: bool,
}

#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) file: String,
    pub(crate) module: ModulePath,
    pub(crate) named: BTreeSet<Named>,
    /// Types and traits, without those of tests.
    pub(crate) types: Vec<String>,
    /// `#[ignore]`, `dbg!`, `todo!` and what switches off the lint on `unsafe_code`.
    pub(crate) banned: Vec<String>,
    /// The name that this module gives to a path, `*` for a glob.
    reexports: Vec<(String, ModulePath)>,
    test_modules: Vec<ModulePath>,
}

impl Source {
    pub(crate) fn parse(file: &str, text: &str) -> Self {
        let module = module_of(file);
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let source = Self {
            file: file.to_owned(),
            module: module.clone(),
            named: BTreeSet::new(),
            types: Vec::new(),
            banned: Vec::new(),
            reexports: Vec::new(),
            test_modules: Vec::new(),
        };
        let children = children(&parsed.items);
        let mut reader = Reader { source, here: module, children, in_tests: false };
        reader.visit_file(&parsed);
        reader.source
    }
}

/// `src/core/supervisor/port.rs` is `core::supervisor::port`.
fn module_of(file: &str) -> ModulePath {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inside.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

fn children(items: &[Item]) -> BTreeSet<String> {
    let modules = items.iter().filter_map(|item| if let Item::Mod(module) = item { Some(module) } else { None });
    modules.map(|module| module.ident.to_string()).collect()
}

struct Reader {
    source: Source,
    here: ModulePath,
    /// The modules that are declared in this one: the first segment of a relative path.
    children: BTreeSet<String>,
    in_tests: bool,
}

impl Reader {
    fn resolve(&self, path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let base: &[String] = match first.as_str() {
            "crate" if self.here.first().is_some_and(|part| part == "core") => &self.here[..1],
            "crate" | "openclaw_supervise" => &[],
            "openclaw_supervise_core" => return Some([&["core".to_owned()], rest].concat()),
            "self" => &self.here,
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                return Some([&self.here[..self.here.len().saturating_sub(ups)], &path[ups..]].concat());
            }
            child if self.children.contains(child) => return Some([&self.here, path].concat()),
            _ => return None,
        };
        Some([base, rest].concat())
    }

    fn name(&mut self, path: &[String]) -> Option<ModulePath> {
        let path = self.resolve(path)?;
        self.source.named.insert(Named { path: path.clone(), in_tests: self.in_tests });
        Some(path)
    }

    fn open(&mut self, tree: &UseTree, prefix: &[String], is_reexport: bool) {
        let (name, path) = match tree {
            UseTree::Path(path) => {
                return self.open(&path.tree, &[prefix, &[path.ident.to_string()]].concat(), is_reexport);
            }
            UseTree::Group(group) => return group.items.iter().for_each(|tree| self.open(tree, prefix, is_reexport)),
            UseTree::Name(name) if name.ident == "self" => (prefix.last().cloned(), prefix.to_vec()),
            UseTree::Name(name) => (Some(name.ident.to_string()), [prefix, &[name.ident.to_string()]].concat()),
            UseTree::Rename(rename) => {
                (Some(rename.rename.to_string()), [prefix, &[rename.ident.to_string()]].concat())
            }
            UseTree::Glob(_) => (Some("*".to_owned()), prefix.to_vec()),
        };
        let resolved = self.name(&path);
        if let (true, Some(name), Some(resolved)) = (is_reexport, name, resolved) {
            self.source.reexports.push((name, resolved));
        }
    }

    /// The paths in a macro call, which is not parsed.
    fn tokens(&mut self, stream: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in stream {
            match token {
                TokenTree::Ident(ident) if colons == 2 => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                other => {
                    self.end_of_path(&mut path);
                    match other {
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
            colons = 0;
        }
        self.end_of_path(&mut path);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>) {
        if path.len() > 1 {
            self.name(path);
        }
        path.clear();
    }

    fn define(&mut self, name: &Ident) {
        if !self.in_tests {
            self.source.types.push(name.to_string());
        }
    }
}

fn is_test_only(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<Ident>().is_ok_and(|word| word == "test")
    };
    attributes.iter().any(is_test)
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &Vec::new(),
        };
        let before = self.in_tests;
        self.in_tests |= is_test_only(attributes);
        match item {
            Item::Struct(item) => self.define(&item.ident),
            Item::Enum(item) => self.define(&item.ident),
            Item::Trait(item) => self.define(&item.ident),
            Item::Type(item) => self.define(&item.ident),
            _ => {}
        }
        visit::visit_item(self, item);
        self.in_tests = before;
    }

    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        self.here.push(module.ident.to_string());
        match &module.content {
            Some((_, items)) => {
                let outer = std::mem::replace(&mut self.children, children(items));
                visit::visit_item_mod(self, module);
                self.children = outer;
            }
            None if self.in_tests => self.source.test_modules.push(self.here.clone()),
            None => {}
        }
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let is_reexport = !matches!(item.vis, Visibility::Inherited);
        self.open(&item.tree, &[], is_reexport);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.name(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a Macro) {
        if ["dbg", "todo"].iter().any(|name| call.path.is_ident(name)) {
            self.source.banned.push(call.path.segments[0].ident.to_string());
        }
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        let path = attribute.path();
        if path.is_ident("ignore") {
            self.source.banned.push("ignore".to_owned());
        }
        // Outside of `platform` the lint has to hold.
        let opts_out = |list: &MetaList| list.tokens.to_string().contains("unsafe_code");
        let hardens = path.is_ident("deny") || path.is_ident("forbid");
        if !hardens && attribute.meta.require_list().is_ok_and(opts_out) {
            self.source.banned.push("unsafe_code".to_owned());
        }
    }

    /// `pub(super)` needs nothing of the module above.
    fn visit_visibility(&mut self, _: &'a Visibility) {}
}

/// The files by their modules.
pub(crate) struct Tree<'a> {
    files: BTreeMap<&'a [String], &'a Source>,
}

impl<'a> Tree<'a> {
    pub(crate) fn of(sources: &'a [Source]) -> Self {
        Self { files: sources.iter().map(|source| (source.module.as_slice(), source)).collect() }
    }

    pub(crate) fn is_test_only(&self, source: &Source) -> bool {
        self.files.values().any(|other| other.test_modules.iter().any(|module| source.module.starts_with(module)))
    }

    /// Which files each file needs, tests aside. A name that a module re-exports leads to the file that defines it.
    pub(crate) fn needs(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let sources = self.files.values().filter(|source| !self.is_test_only(source));
        sources
            .map(|source| {
                let named = source.named.iter().filter(|named| !named.in_tests);
                let mut needed: BTreeSet<&str> =
                    named.flat_map(|named| self.definers(&named.path, 0)).map(|source| source.file.as_str()).collect();
                needed.remove(source.file.as_str());
                (source.file.as_str(), needed)
            })
            .collect()
    }

    fn definers(&self, path: &[String], depth: usize) -> Vec<&'a Source> {
        let Some((source, rest)) =
            (0..=path.len()).rev().find_map(|at| self.files.get(&path[..at]).map(|source| (*source, &path[at..])))
        else {
            return Vec::new();
        };
        let Some((name, below)) = rest.split_first().filter(|_| depth < 8) else { return vec![source] };
        if let Some((_, to)) = source.reexports.iter().find(|(exported, _)| exported == name) {
            return self.definers(&[to, below].concat(), depth + 1);
        }
        let globs = source.reexports.iter().filter(|(exported, _)| exported == "*");
        let through: Vec<&Source> = globs
            .filter(|(_, to)| self.files.contains_key(&[to.as_slice(), std::slice::from_ref(name)].concat()[..]))
            .flat_map(|(_, to)| self.definers(&[to, rest].concat(), depth + 1))
            .collect();
        if through.is_empty() { vec![source] } else { through }
    }
}
