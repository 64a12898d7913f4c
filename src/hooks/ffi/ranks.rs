//! The store and the messages of the ranks of a joint run.

use std::ffi::{CString, c_char, c_int, c_void};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::{Message, check, not_null};

/// `prism_store`.
enum StoreHandle {}
/// `prism_ranks`.
enum RanksHandle {}

unsafe extern "C" {
    fn prism_store_open(
        host: *const c_char,
        port: c_int,
        listener: c_int,
        prefix: *const c_char,
        milliseconds: i64,
        out: *mut *mut StoreHandle,
    ) -> Message;
    fn prism_store_clone(
        store: *const StoreHandle,
        milliseconds: i64,
        out: *mut *mut StoreHandle,
    ) -> Message;
    fn prism_store_set(
        store: *mut StoreHandle,
        key: *const c_char,
        bytes: *const u8,
        length: usize,
    ) -> Message;
    fn prism_store_claim(
        store: *mut StoreHandle,
        key: *const c_char,
        bytes: *const u8,
        length: usize,
        value: *mut *mut c_void,
    ) -> Message;
    fn prism_store_read(
        store: *mut StoreHandle,
        keys: *const *const c_char,
        count: usize,
        milliseconds: i64,
        values: *mut *mut c_void,
    ) -> Message;
    fn prism_store_free(store: *mut StoreHandle);
    fn prism_ranks_join(
        store: *const StoreHandle,
        rank: c_int,
        size: c_int,
        address: *const c_char,
        joining: i64,
        waiting: i64,
        out: *mut *mut RanksHandle,
    ) -> Message;
    fn prism_ranks_send(ranks: *mut RanksHandle, values: *const c_void, to: c_int) -> Message;
    fn prism_ranks_receive(ranks: *mut RanksHandle, values: *mut c_void, from: c_int) -> Message;
    fn prism_ranks_add_up(ranks: *mut RanksHandle, values: *mut c_void) -> Message;
    fn prism_ranks_broadcast(ranks: *mut RanksHandle, values: *mut c_void) -> Message;
    fn prism_ranks_free(ranks: *mut RanksHandle);
}

/// A connection to the store that all ranks reach: short values under keys.
#[derive(Debug)]
pub struct RawStore(NonNull<StoreHandle>);

// SAFETY: the connection belongs to no thread, and libtorch locks it for each call.
unsafe impl Send for RawStore {}
// SAFETY: as above.
unsafe impl Sync for RawStore {}

/// Messages between the ranks. All ranks make the same calls in the same order.
#[derive(Debug)]
pub struct RawRanks(NonNull<RanksHandle>);

// SAFETY: libtorch queues messages under a lock. Their order is the callers' affair.
unsafe impl Send for RawRanks {}
// SAFETY: as above.
unsafe impl Sync for RawRanks {}

impl Drop for RawStore {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is released once.
        unsafe { prism_store_free(self.0.as_ptr()) }
    }
}

impl Drop for RawRanks {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { prism_ranks_free(self.0.as_ptr()) }
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl RawStore {
    /// Reaches the store at `host` and `port`, and serves it if there is a `listener` for it. Keys
    /// begin with `prefix`.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the store is not reached within `most`.
    pub fn open(
        host: &str,
        port: u16,
        listener: Option<TcpListener>,
        prefix: &str,
        most: Duration,
    ) -> Result<RawStore> {
        let (host, prefix) = (CString::new(host)?, CString::new(prefix)?);
        let listener = listener.map_or(-1, IntoRawFd::into_raw_fd); // libtorch closes it
        let (port, most) = (c_int::from(port), milliseconds(most));
        let mut store = ptr::null_mut();
        // SAFETY: both texts are C strings, the socket is open, and `store` outlives the call.
        check(unsafe {
            prism_store_open(
                host.as_ptr(),
                port,
                listener,
                prefix.as_ptr(),
                most,
                &mut store,
            )
        })?;
        not_null(store).map(RawStore)
    }

    /// Another connection to the store, whose answers take at most that long.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line.
    pub fn connect(&self, most: Duration) -> Result<RawStore> {
        let mut store = ptr::null_mut();
        // SAFETY: the handle came from the shim; `store` outlives the call.
        check(unsafe { prism_store_clone(self.0.as_ptr(), milliseconds(most), &mut store) })?;
        not_null(store).map(RawStore)
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the store is not reached.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = CString::new(key)?;
        // SAFETY: the key is a C string, and the bytes are as many as given.
        check(unsafe {
            prism_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len())
        })
    }

    /// Sets the value of a key that has none; returns the value that it has then.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the store is not reached.
    pub fn claim(&self, key: &str, value: &[u8]) -> Result<Vec<u8>> {
        let key = CString::new(key)?;
        let mut found = ptr::null_mut();
        // SAFETY: the key is a C string, the bytes are as many as given, `found` outlives the call.
        check(unsafe {
            let (bytes, length) = (value.as_ptr(), value.len());
            prism_store_claim(self.0.as_ptr(), key.as_ptr(), bytes, length, &mut found)
        })?;
        // SAFETY: the shim made a new at::Tensor, which tch owns from here on.
        let found = unsafe { Tensor::from_ptr(not_null(found)?.as_ptr().cast()) };
        Ok(Vec::try_from(found)?)
    }

    /// The values of all `keys`; none if a key has no value yet.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the store is not reached.
    pub fn peek(&self, keys: &[String]) -> Result<Option<Vec<Vec<u8>>>> {
        self.read(keys, 0)
    }

    /// The values of all `keys`, as soon as all of them have one.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if a key has no value after `most`.
    pub fn wait(&self, keys: &[String], most: Duration) -> Result<Vec<Vec<u8>>> {
        let values = self.read(keys, milliseconds(most).max(1))?;
        Ok(values.unwrap_or_default())
    }

    fn read(&self, keys: &[String], most: i64) -> Result<Option<Vec<Vec<u8>>>> {
        let keys = keys.iter().map(|key| CString::new(key.as_bytes()));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = keys.iter().map(|key| key.as_ptr()).collect();
        let mut found = vec![ptr::null_mut(); keys.len()];
        // SAFETY: the keys are C strings; the shim writes no pointer or one for each key.
        check(unsafe {
            let (keys, count) = (pointers.as_ptr(), pointers.len());
            prism_store_read(self.0.as_ptr(), keys, count, most, found.as_mut_ptr())
        })?;
        if found.iter().any(|value| value.is_null()) {
            return Ok(None);
        }
        // SAFETY: each pointer is to a new at::Tensor, which tch owns from here on.
        let own = |value: *mut c_void| unsafe { Tensor::from_ptr(value.cast()) };
        let values = found.into_iter().map(|value| Vec::try_from(own(value)));
        Ok(Some(values.collect::<Result<_, _>>()?))
    }
}

impl RawRanks {
    /// Waits for all ranks, `joining` at most. Later calls wait `waiting` at most. Other ranks reach
    /// this one at `address`.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if a rank does not come or cannot be reached.
    pub fn join(
        store: &RawStore,
        rank: usize,
        size: usize,
        address: &str,
        joining: Duration,
        waiting: Duration,
    ) -> Result<RawRanks> {
        let address = CString::new(address)?;
        let (joining, waiting) = (milliseconds(joining), milliseconds(waiting));
        let mut ranks = ptr::null_mut();
        // SAFETY: the handle came from the shim, the address is a C string, `ranks` outlives the call.
        check(unsafe {
            prism_ranks_join(
                store.0.as_ptr(),
                rank as c_int,
                size as c_int,
                address.as_ptr(),
                joining,
                waiting,
                &mut ranks,
            )
        })?;
        not_null(ranks).map(RawRanks)
    }

    /// Sends bytes to another rank, which receives them.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the connection is lost.
    pub fn send(&self, bytes: &[u8], to: usize) -> Result<()> {
        let length = Tensor::from_slice(&[bytes.len() as i64]);
        self.send_tensor(&length, to)?;
        match bytes {
            [] => Ok(()),
            bytes => self.send_tensor(&Tensor::from_slice(bytes), to),
        }
    }

    fn send_tensor(&self, tensor: &Tensor, to: usize) -> Result<()> {
        // SAFETY: tch's pointer is to a live at::Tensor.
        check(unsafe { prism_ranks_send(self.0.as_ptr(), tensor.as_ptr().cast(), to as c_int) })
    }

    /// Receives bytes that another rank sends.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if the connection is lost.
    pub fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let length = self.receive_tensor(1, Kind::Int64, from)?;
        match length.int64_value(&[0]) {
            0 => Ok(Vec::new()),
            length => Ok(Vec::try_from(self.receive_tensor(
                length,
                Kind::Uint8,
                from,
            )?)?),
        }
    }

    fn receive_tensor(&self, length: i64, kind: Kind, from: usize) -> Result<Tensor> {
        let mut tensor = Tensor::f_zeros([length], (kind, tch::Device::Cpu))?;
        // SAFETY: tch's pointer is to a live at::Tensor, which nothing else uses.
        check(unsafe {
            prism_ranks_receive(self.0.as_ptr(), tensor.as_mut_ptr().cast(), from as c_int)
        })?;
        Ok(tensor)
    }

    /// Adds up the tensors of all ranks in that of rank 0; those of the others are undefined then.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if a connection is lost.
    pub fn add_up(&self, tensor: &mut Tensor) -> Result<()> {
        // SAFETY: tch's pointer is to a live at::Tensor, which is borrowed for the call.
        check(unsafe { prism_ranks_add_up(self.0.as_ptr(), tensor.as_mut_ptr().cast()) })
    }

    /// Gives all ranks the values of rank 0 in a tensor of the same shape.
    ///
    /// # Errors
    /// Returns libtorch's reason on one line if a connection is lost.
    pub fn broadcast(&self, tensor: &mut Tensor) -> Result<()> {
        // SAFETY: tch's pointer is to a live at::Tensor, which is borrowed for the call.
        check(unsafe { prism_ranks_broadcast(self.0.as_ptr(), tensor.as_mut_ptr().cast()) })
    }
}
