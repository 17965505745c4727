//! References between variables: `${{ NAME }}`, `${{ shared.NAME }}`, `${{ service.NAME }}` (Railway's syntax).

use std::collections::BTreeMap;

/// Where a referenced variable lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Shared by the whole project.
    Shared,
    /// One service, by name.
    Service(String),
}

/// All raw values of a project, by scope and name.
pub type RawVariables = BTreeMap<Scope, BTreeMap<String, String>>;

/// A reference that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing has that name.
    #[error("variable `{variable}` refers to `${{{{ {reference} }}}}`, which is not set")]
    Unknown {
        /// The variable whose value holds the reference.
        variable: String,
        /// What it refers to.
        reference: String,
    },
    /// It leads back to itself.
    #[error("variable `{variable}` refers to itself through `${{{{ {reference} }}}}`")]
    Circle {
        /// The variable whose value holds the reference.
        variable: String,
        /// The reference that closes the circle.
        reference: String,
    },
}

/// Deepest chain of references. A longer one is somebody's mistake.
const DEPTH_MAX: usize = 16;

/// Returns the variables of one service, shared ones included (the service's own win), with references replaced.
/// Text that only looks like a reference (`${{` without `}}`) stays as it is.
///
/// # Errors
/// When a reference leads nowhere or back to itself.
pub fn resolve(raw: &RawVariables, service: &str) -> Result<BTreeMap<String, String>, ReferenceError> {
    let own = Scope::Service(service.to_owned());
    let mut names: BTreeMap<&String, &Scope> = BTreeMap::new();
    for scope in [&Scope::Shared, &own] {
        names.extend(raw.get(scope).into_iter().flatten().map(|(name, _)| (name, scope)));
    }
    let mut resolved = BTreeMap::new();
    for (name, scope) in names {
        let value = expand(raw, scope, name, &raw[scope][name], &mut Vec::new())?;
        resolved.insert(name.clone(), value);
    }
    Ok(resolved)
}

fn expand(
    raw: &RawVariables,
    scope: &Scope,
    variable: &str,
    value: &str,
    path: &mut Vec<(Scope, String)>,
) -> Result<String, ReferenceError> {
    let here = (scope.clone(), variable.to_owned());
    if path.contains(&here) || path.len() >= DEPTH_MAX {
        let first = path.first().map_or(variable, |(_, name)| name.as_str());
        return Err(ReferenceError::Circle { variable: first.to_owned(), reference: variable.to_owned() });
    }
    path.push(here);
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = rest.find("${{") {
        let Some(length) = rest[start..].find("}}") else { break };
        text.push_str(&rest[..start]);
        let reference = rest[start + 3..start + length].trim();
        text.push_str(&look_up(raw, scope, variable, reference, path)?);
        rest = &rest[start + length + 2..];
    }
    text.push_str(rest);
    path.pop();
    Ok(text)
}

fn look_up(
    raw: &RawVariables,
    scope: &Scope,
    variable: &str,
    reference: &str,
    path: &mut Vec<(Scope, String)>,
) -> Result<String, ReferenceError> {
    let candidates: Vec<(Scope, &str)> = match reference.rsplit_once('.') {
        None => vec![(scope.clone(), reference), (Scope::Shared, reference)],
        Some(("shared", name)) => vec![(Scope::Shared, name)],
        Some((service, name)) => {
            let service = service.trim().trim_matches('"').to_lowercase().replace([' ', '_'], "-");
            vec![(Scope::Service(service.clone()), name), (Scope::Shared, name)]
        }
    };
    for (place, name) in candidates {
        let is_itself = place == *scope && name == variable && !reference.contains('.');
        if is_itself {
            continue;
        }
        if let Some(value) = raw.get(&place).and_then(|values| values.get(name)) {
            return expand(raw, &place, name, value, path);
        }
    }
    if reference == variable {
        return Err(ReferenceError::Circle {
            variable: variable.to_owned(),
            reference: reference.to_owned(),
        });
    }
    Err(ReferenceError::Unknown { variable: variable.to_owned(), reference: reference.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(entries: &[(&str, &str, &str)]) -> RawVariables {
        let mut raw = RawVariables::new();
        for (scope, name, value) in entries {
            let scope = if *scope == "shared" { Scope::Shared } else { Scope::Service((*scope).to_owned()) };
            raw.entry(scope).or_default().insert((*name).to_owned(), (*value).to_owned());
        }
        raw
    }

    #[test]
    fn references_reach_own_shared_and_other_services_variables() {
        let raw = project(&[
            ("shared", "DOMAIN", "example.com"),
            ("api", "PORT", "8080"),
            ("web", "NAME", "web"),
            ("web", "URL", "https://${{NAME}}.${{ shared.DOMAIN }}/x?p=${{ Api.PORT }}"),
        ]);
        let web = resolve(&raw, "web").unwrap();
        assert_eq!(web["URL"], "https://web.example.com/x?p=8080");
        assert_eq!(web["DOMAIN"], "example.com");
    }

    #[test]
    fn a_circle_and_an_unknown_name_are_errors_that_name_the_variable() {
        let circle = project(&[("a", "X", "${{Y}}"), ("a", "Y", "${{X}}")]);
        assert!(
            matches!(resolve(&circle, "a"), Err(ReferenceError::Circle { variable, .. }) if variable == "X")
        );
        let own = project(&[("a", "X", "${{X}}")]);
        assert!(matches!(resolve(&own, "a"), Err(ReferenceError::Circle { .. })));
        let unknown = project(&[("a", "X", "${{ db.URL }}")]);
        let error = resolve(&unknown, "a").unwrap_err().to_string();
        assert_eq!(error, "variable `X` refers to `${{ db.URL }}`, which is not set");
    }

    #[test]
    fn values_without_references_are_kept_to_the_byte() {
        let odd = "a=b\n\"q\" 'x' $HOME ${PORT} ${{ open \u{1f680}\t";
        let raw = project(&[("a", "X", odd)]);
        assert_eq!(resolve(&raw, "a").unwrap()["X"], odd);
    }

    #[test]
    fn a_shared_value_can_be_overridden_in_terms_of_itself() {
        let raw = project(&[("shared", "X", "base"), ("a", "X", "${{X}}-own")]);
        assert_eq!(resolve(&raw, "a").unwrap()["X"], "base-own");
    }
}
