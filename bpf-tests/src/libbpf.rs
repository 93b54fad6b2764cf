//! The little of libbpf that the tests need, with ownership: an object loaded by it, its maps and
//! programs, and its ring buffer reader. libbpf is the loader that most tools use; that it takes the
//! object too shows that the object follows the format and not one loader's habits.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::{self, NonNull},
};

use libbpf_sys as sys;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// Room for what the verifier says.
const LOG_BYTES: usize = 1 << 20;

/// A loaded object.
#[derive(Debug)]
pub struct Loaded {
    object: NonNull<sys::bpf_object>,
}

/// What a map of the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// `BPF_MAP_TYPE_`.
    pub kind: u32,
    /// Size of a key, bytes.
    pub key: u32,
    /// Size of a value, bytes.
    pub value: u32,
    /// Number of entries.
    pub entries: u32,
}

impl Loaded {
    /// Opens an object, sets global variables (name and bytes, in the section `.rodata`) and loads
    /// everything into the kernel.
    ///
    /// # Errors
    /// What failed, with the verifier's log where there is one.
    pub fn load(bytes: &[u8], globals: &[(&str, &[u8])]) -> Result<Self, String> {
        let mut log = vec![0_u8; LOG_BYTES];
        let options = sys::bpf_object_open_opts {
            sz: size_of::<sys::bpf_object_open_opts>() as sys::size_t,
            object_name: c"ptp".as_ptr(),
            kernel_log_buf: log.as_mut_ptr().cast::<c_char>(),
            kernel_log_size: log.len() as sys::size_t,
            kernel_log_level: 1,
            ..sys::bpf_object_open_opts::default()
        };
        // SAFETY: no pointer but a null one; libbpf then prints nothing.
        unsafe { sys::libbpf_set_print(None) };
        // SAFETY: `bytes` lives through the call, which copies what it needs; `options` says its
        // size, and its log buffer lives until the object has been loaded below.
        let object = unsafe {
            sys::bpf_object__open_mem(
                bytes.as_ptr().cast(),
                bytes.len() as sys::size_t,
                &raw const options,
            )
        };
        let this = Self { object: NonNull::new(object).ok_or_else(|| failure("open"))? };
        this.set_globals(bytes, globals)?;
        // SAFETY: an object that was opened and not yet loaded.
        if unsafe { sys::bpf_object__load(this.object.as_ptr()) } != 0 {
            let error = failure("load");
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default();
            return Err(format!("{error}\n{}", log.to_string_lossy()));
        }
        Ok(this)
    }

    fn set_globals(&self, bytes: &[u8], globals: &[(&str, &[u8])]) -> Result<(), String> {
        let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
        let section = file.section_by_name(".rodata").ok_or("no section .rodata")?.index();
        let map = self.map(".rodata")?;
        let mut size = 0;
        // SAFETY: a map of this object; the pointer it returns is valid for `size` bytes until the
        // object is closed.
        let value = unsafe { sys::bpf_map__initial_value(map.as_ptr(), &raw mut size) };
        let value = NonNull::new(value.cast::<u8>()).ok_or("no initial value of .rodata")?;
        for (name, new) in globals {
            let symbol = file
                .symbols()
                .find(|symbol| symbol.section_index() == Some(section) && symbol.name() == Ok(name))
                .ok_or_else(|| format!("no global variable {name}"))?;
            let at = symbol.address() as usize;
            assert!(at + new.len() <= size as usize && new.len() as u64 == symbol.size());
            // SAFETY: inside the value, as just checked; nobody else has a reference to it.
            unsafe { ptr::copy_nonoverlapping(new.as_ptr(), value.add(at).as_ptr(), new.len()) };
        }
        Ok(())
    }

    fn map(&self, name: &str) -> Result<NonNull<sys::bpf_map>, String> {
        let c_name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: the object is open, the name a C string.
        let map =
            unsafe { sys::bpf_object__find_map_by_name(self.object.as_ptr(), c_name.as_ptr()) };
        NonNull::new(map).ok_or_else(|| format!("no map {name}"))
    }

    /// What the map of a name is.
    ///
    /// # Errors
    /// When there is none.
    pub fn map_shape(&self, name: &str) -> Result<MapShape, String> {
        let map = self.map(name)?.as_ptr();
        // SAFETY: a map of this object, which is open.
        Ok(unsafe {
            MapShape {
                kind: sys::bpf_map__type(map),
                key: sys::bpf_map__key_size(map),
                value: sys::bpf_map__value_size(map),
                entries: sys::bpf_map__max_entries(map),
            }
        })
    }

    /// Names and types of the programs, sorted.
    pub fn programs(&self) -> Vec<(String, u32)> {
        let mut programs = Vec::new();
        let mut program = ptr::null_mut();
        loop {
            // SAFETY: the object is open; the program is null or the one returned before.
            program = unsafe { sys::bpf_object__next_program(self.object.as_ptr(), program) };
            if program.is_null() {
                break;
            }
            // SAFETY: a program of this object, whose name is a C string that lives as long.
            let (name, kind) = unsafe {
                (CStr::from_ptr(sys::bpf_program__name(program)), sys::bpf_program__type(program))
            };
            programs.push((name.to_string_lossy().into_owned(), kind));
        }
        programs.sort();
        programs
    }

    /// Runs a program once on a frame by BPF_PROG_TEST_RUN and returns what it returned.
    ///
    /// # Errors
    /// When there is no such program or the kernel refuses.
    pub fn run(&self, program: &str, frame: &[u8]) -> Result<u32, String> {
        let name = CString::new(program).map_err(|error| error.to_string())?;
        // SAFETY: the object is open, the name a C string.
        let found =
            unsafe { sys::bpf_object__find_program_by_name(self.object.as_ptr(), name.as_ptr()) };
        let found = NonNull::new(found).ok_or_else(|| format!("no program {program}"))?;
        let mut options = sys::bpf_test_run_opts {
            sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
            data_in: frame.as_ptr().cast(),
            data_size_in: frame.len() as u32,
            ..sys::bpf_test_run_opts::default()
        };
        // SAFETY: a loaded program; the structure says its size, and the frame that it points to
        // lives through the call.
        let result = unsafe {
            let descriptor = sys::bpf_program__fd(found.as_ptr());
            sys::bpf_prog_test_run_opts(descriptor, &raw mut options)
        };
        if result == 0 { Ok(options.retval) } else { Err(failure("run")) }
    }

    /// Everything that is in the ring buffer of a name.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn drain(&self, ring: &str) -> Result<Vec<Vec<u8>>, String> {
        unsafe extern "C" fn take(
            context: *mut c_void,
            data: *mut c_void,
            size: sys::size_t,
        ) -> c_int {
            // SAFETY: libbpf hands back the context given below and a record that is valid for
            // `size` bytes during this call.
            unsafe {
                let entries = &mut *context.cast::<Vec<Vec<u8>>>();
                entries.push(std::slice::from_raw_parts(data.cast::<u8>(), size as usize).to_vec());
            }
            0
        }
        let map = self.map(ring)?;
        let mut entries: Vec<Vec<u8>> = Vec::new();
        // SAFETY: a map of this object, which is loaded. `entries` outlives the reader, which is
        // freed below, and nobody else uses it in between.
        let read = unsafe {
            let descriptor = sys::bpf_map__fd(map.as_ptr());
            let reader = sys::ring_buffer__new(
                descriptor,
                Some(take),
                (&raw mut entries).cast(),
                ptr::null(),
            );
            let reader = NonNull::new(reader).ok_or_else(|| failure("open the ring buffer"))?;
            let read = sys::ring_buffer__consume(reader.as_ptr());
            sys::ring_buffer__free(reader.as_ptr());
            read
        };
        if read < 0 { Err(failure("read the ring buffer")) } else { Ok(entries) }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: opened by `load`, closed here only; no pointer into it is left.
        unsafe { sys::bpf_object__close(self.object.as_ptr()) };
    }
}

fn failure(attempted: &str) -> String {
    format!("libbpf cannot {attempted}: {}", std::io::Error::last_os_error())
}
