//! A protocol as the trait describes it, checked.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, FnArg, Ident, ItemTrait, Lit, Pat, Result, ReturnType, TraitItem,
    TraitItemFn, Type, Visibility,
};

/// Methods that the label has room for.
const MAX_METHODS: usize = 256;

/// The whole protocol.
pub struct Protocol {
    pub name: String,
    pub version: u16,
    pub docs: Vec<Attribute>,
    pub visibility: Visibility,
    pub ident: Ident,
    pub methods: Vec<Method>,
}

/// One method.
pub struct Method {
    pub docs: Vec<Attribute>,
    pub ident: Ident,
    pub arguments: Vec<(Ident, Type)>,
    pub result: Type,
    pub is_result: bool,
    pub is_idempotent: bool,
    pub is_hot: bool,
    pub is_deferred: bool,
}

impl Protocol {
    pub fn parse(attribute: TokenStream, item: TokenStream) -> Result<Self> {
        let (name, version) = parse_attribute(attribute)?;
        let item: ItemTrait = syn::parse2(item)?;
        if !item.generics.params.is_empty() || !item.supertraits.is_empty() {
            let message = "a protocol has no type parameters and no supertraits";
            return Err(Error::new(item.ident.span(), message));
        }
        let mut methods = Vec::new();
        for member in &item.items {
            match member {
                TraitItem::Fn(method) => methods.push(Method::parse(method)?),
                other => {
                    return Err(Error::new(other.span(), "a protocol has methods only"));
                }
            }
        }
        if methods.is_empty() || methods.len() > MAX_METHODS {
            let message = format!("a protocol has 1 to {MAX_METHODS} methods");
            return Err(Error::new(item.ident.span(), message));
        }
        Ok(Protocol {
            name,
            version,
            docs: docs(&item.attrs),
            visibility: item.vis,
            ident: item.ident,
            methods,
        })
    }
}

fn parse_attribute(attribute: TokenStream) -> Result<(String, u16)> {
    const USAGE: &str = "expected #[libipc::protocol(name = \"…\", version = N)]";
    let span = attribute.span();
    let (mut name, mut version) = (None, None);
    let pairs = syn::punctuated::Punctuated::<syn::MetaNameValue, syn::Token![,]>::parse_terminated
        .parse2(attribute)?;
    for pair in pairs {
        let Expr::Lit(value) = &pair.value else {
            return Err(Error::new(pair.span(), USAGE));
        };
        match &value.lit {
            Lit::Str(text) if pair.path.is_ident("name") => name = Some(text.value()),
            Lit::Int(number) if pair.path.is_ident("version") => {
                version = Some(number.base10_parse()?);
            }
            _ => return Err(Error::new(pair.span(), USAGE)),
        }
    }
    match (name, version) {
        (Some(name), Some(version)) => Ok((name, version)),
        _ => Err(Error::new(span, USAGE)),
    }
}

impl Method {
    fn parse(item: &TraitItemFn) -> Result<Self> {
        if let Some(body) = &item.default {
            return Err(Error::new(body.span(), "a protocol's methods have no bodies"));
        }
        let (mut is_idempotent, mut is_hot, mut is_deferred) = (false, false, false);
        for attribute in &item.attrs {
            let path = attribute.path();
            if path.is_ident("idempotent") {
                is_idempotent = true;
            } else if path.is_ident("hot") {
                is_hot = true;
            } else if path.is_ident("deferred") {
                is_deferred = true;
            } else if !path.is_ident("doc") {
                let message = "unknown attribute: idempotent, hot and deferred exist";
                return Err(Error::new(attribute.span(), message));
            }
        }
        if is_hot && is_deferred {
            let message = "a deferred answer is never hot: choose one";
            return Err(Error::new(item.sig.ident.span(), message));
        }
        let result = match &item.sig.output {
            ReturnType::Default => syn::parse_quote!(()),
            ReturnType::Type(_, result) => (**result).clone(),
        };
        Ok(Method {
            docs: docs(&item.attrs),
            ident: item.sig.ident.clone(),
            arguments: arguments(item)?,
            is_result: is_result(&result),
            result,
            is_idempotent,
            is_hot,
            is_deferred,
        })
    }
}

fn arguments(item: &TraitItemFn) -> Result<Vec<(Ident, Type)>> {
    let mut inputs = item.sig.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) if receiver.mutability.is_none() => {}
        _ => {
            let message = "the first parameter is `&self`";
            return Err(Error::new(item.sig.ident.span(), message));
        }
    }
    let mut arguments = Vec::new();
    for input in inputs {
        let FnArg::Typed(typed) = input else {
            return Err(Error::new(input.span(), "only one `self`"));
        };
        let Pat::Ident(name) = &*typed.pat else {
            return Err(Error::new(typed.pat.span(), "a parameter is a plain name"));
        };
        arguments.push((name.ident.clone(), (*typed.ty).clone()));
    }
    Ok(arguments)
}

fn is_result(result: &Type) -> bool {
    match result {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Result"),
        _ => false,
    }
}

fn docs(attributes: &[Attribute]) -> Vec<Attribute> {
    let is_doc = |attribute: &&Attribute| attribute.path().is_ident("doc");
    attributes.iter().filter(is_doc).cloned().collect()
}
