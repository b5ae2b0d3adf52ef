import CPython
import Glibc
import Python
import Streams

/// The descriptors that a loop watches.
extension LoopCore {
    /// Which of the two callbacks of a descriptor.
    enum Direction { case read, write }

    /// Throws where the thread of the loop waits just now: it reads what this would change.
    func checkMayChange() throws(PythonError) {
        guard isPolling || isBackground && ContextThread.current !== thread else { return }
        throw runtimeError(
            "Non-thread-safe operation invoked on an event loop other than the current one: "
                + "the loop runs in another thread; use call_soon_threadsafe()")
    }

    /// Has a handle be ready whenever the descriptor is.
    func add(_ direction: Direction, _ fd: Int32, _ handle: PyPointer) throws(PythonError) {
        try checkMayChange()
        let watch = try self.watch(fd)
        Py_IncRef(handle)
        let old: PyPointer?
        switch direction {
        case .read:
            old = watch.reader
            watch.reader = handle
        case .write:
            old = watch.writer
            watch.writer = handle
        }
        letGo(of: old)
        do throws(PythonError) { try update(watch) } catch {
            let exception = Exception.take()
            _ = try? remove(direction, fd)
            exception?.restore()
            throw error
        }
    }

    /// Whether there was one.
    func remove(_ direction: Direction, _ fd: Int32) throws(PythonError) -> Bool {
        try checkMayChange()
        guard let watch = watchesByDescriptor[fd] else { return false }
        let old: PyPointer?
        switch direction {
        case .read:
            old = watch.reader
            watch.reader = nil
        case .write:
            old = watch.writer
            watch.writer = nil
        }
        if watch.reader == nil, watch.writer == nil, watch.transport == nil {
            forget(watch)
        } else {
            try update(watch)
        }
        letGo(of: old)
        return old != nil
    }

    private func letGo(of handle: PyPointer?) {
        guard let handle else { return }
        if cpython_type(handle) == state.handleType {
            HandleObject.cancel(handle)
        } else {
            let answer = cpython_call_method_named(handle, "cancel")
            if answer == nil { PyErr_Clear() }
            Py_DecRef(answer)
        }
        Py_DecRef(handle)
    }

    /// The watch of a descriptor.
    func watch(_ fd: Int32) throws(PythonError) -> LoopWatch {
        if let known = watchesByDescriptor[fd] { return known }
        let watch = LoopWatch(fd: fd)
        guard let token = watches.insert(watch) else { throw osError(ENFILE) }
        watch.token = token
        watchesByDescriptor[fd] = watch
        return watch
    }

    /// Tells the poller what a descriptor is watched for.
    func update(_ watch: LoopWatch) throws(PythonError) {
        let wanted = watch.wanted
        guard wanted != watch.interest else { return }
        do throws(Errno) {
            guard let wanted else {
                poller?.remove(watch.fd)
                watch.interest = nil
                return
            }
            try makePoller()
            if watch.interest == nil {
                try add(watch, wanted)
            } else {
                do throws(Errno) { try poller?.modify(watch.fd, token: watch.token, interest: wanted) } catch
                {
                    // It was closed, which took it out, and the number is another's now.
                    guard error.code == ENOENT else { throw error }
                    try add(watch, wanted)
                }
            }
            watch.interest = wanted
        } catch { throw osError(error.code) }
    }

    private func add(_ watch: LoopWatch, _ wanted: Poller.Interest) throws(Errno) {
        do throws(Errno) { try poller?.add(watch.fd, token: watch.token, interest: wanted) } catch {
            guard error.code == EEXIST else { throw error }
            try poller?.modify(watch.fd, token: watch.token, interest: wanted)
        }
    }

    /// Watches a descriptor no more.
    func forget(_ watch: LoopWatch) {
        if watch.interest != nil { poller?.remove(watch.fd) }
        watch.interest = nil
        watches.remove(watch.token)
        if watchesByDescriptor[watch.fd] === watch { watchesByDescriptor[watch.fd] = nil }
        let handles = [watch.reader, watch.writer]
        watch.reader = nil
        watch.writer = nil
        for handle in handles { letGo(of: handle) }
    }

    /// Makes the poller where there is none.
    func makePoller() throws(Errno) {
        guard poller == nil else { return }
        poller = try Poller(capacity: 256)
    }

    /// The loop is about to be run by this thread, whose doorbell is to wake it.
    func bind() throws(PythonError) {
        thread = ContextThread.current.flatMap { $0.runs(state) ? $0 : nil }
        if let bell = thread?.context.doorbell, bell !== doorbell {
            guard served == nil else {
                throw runtimeError("the loop serves reactor protocols for the thread that has run it before")
            }
            doorbell = bell
            // Those are another context's, which may be gone.
            for inner in innerDescriptors { unwatchInner(inner) }
        }
        do throws(Errno) {
            try makePoller()
            let descriptor = try doorbell.descriptor()
            guard descriptor != bellDescriptor else { return }
            if bellDescriptor >= 0 { poller?.remove(bellDescriptor) }
            try poller?.add(descriptor, token: LoopCore.bell, interest: .read)
            bellDescriptor = descriptor
        } catch { throw osError(error.code) }
    }

    /// Has a wait of this loop end when something is ready in another poller.
    func watchInner(_ descriptor: Int32) {
        guard !innerDescriptors.contains(descriptor) else { return }
        guard (try? poller?.add(descriptor, token: LoopCore.inner, interest: .read)) != nil else { return }
        innerDescriptors.append(descriptor)
    }

    func unwatchInner(_ descriptor: Int32) {
        guard let index = innerDescriptors.firstIndex(of: descriptor) else { return }
        innerDescriptors.remove(at: index)
        poller?.remove(descriptor)
    }
}
