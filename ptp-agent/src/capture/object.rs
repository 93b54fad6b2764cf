//! Programs and maps of a loaded object, by name and as what they are.

use aya::{
    Ebpf,
    maps::{Map, MapError},
    programs::{Program, ProgramError},
};

use super::{CaptureError, programs::kernel_release};

/// The program `name`.
///
/// # Errors
/// [`CaptureError`] where there is none, or one of another type.
pub(crate) fn program<'a, T>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut T, CaptureError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| CaptureError::Kernel {
            kernel: kernel_release(),
            reason: format!("the object has no program {name}"),
        })?
        .try_into()
        .map_err(CaptureError::load)
}

/// The map `name`.
///
/// # Errors
/// [`CaptureError::Map`] where there is none, or one of another type.
pub(crate) fn map<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M, CaptureError>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or(MapError::InvalidName { name: name.into() });
    map.and_then(M::try_from).map_err(|error| CaptureError::Map(name, error))
}
