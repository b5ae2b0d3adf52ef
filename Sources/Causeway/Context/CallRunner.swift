import Beam
import CErlNif
import CPython
import Python
import Streams

/// Runs calls on a context's thread, with the GIL, and sends the answers.
final class CallRunner {
    let context: Context
    let state: ModuleState
    /// Up to how many bytes of a request its answer is made where the request lives.
    private static let smallRequest = 4096
    /// Up to how many terms a result may have that its caller copies on a scheduler.
    private static let smallResult = 64
    /// Answers to large requests are made here, one after the other: sending one clears it.
    private let answers = Environment()

    init(context: Context, state: ModuleState) {
        self.context = context
        self.state = state
    }

    /// Runs one call and answers it, unless its caller has given it up.
    func run(_ call: Call) {
        guard call.begin(as: context.nextCall()) else { return }
        count(context.statistics.calls)
        let outerActivity = context.activity
        context.activity = call.number
        let start = monotonicNanoseconds()
        let outerStart = context.busySince.exchange(start, ordering: .relaxed)
        context.isBusy.store(true, ordering: .relaxed)
        let outerBytes = state.decodedBytes
        state.decodedBytes = 0
        let outer = context.current
        context.current = .passUnretained(call)
        let outerOutput = context.outlet.beginCall()
        let result = result(of: call)
        context.outlet.endCall(outerOutput, context)
        context.current = outer
        state.decodedBytes = outerBytes
        context.activity = outerActivity
        context.isBusy.store(false, ordering: .relaxed)
        context.busySince.store(outerStart, ordering: .relaxed)
        context.endInterruption()
        if let result { answer(call, result, since: start) }
    }

    /// Answers a call by what its task has come to. Where that has printed, the lines go first.
    func answer(_ call: Call, by task: PyPointer, isSmall: Bool, hasPrinted: Bool) {
        let outerBytes = state.decodedBytes
        defer { state.decodedBytes = outerBytes }
        state.decodedBytes = isSmall ? 0 : Int.max
        let value = cpython_call_method0(task, state.loopNames.result)
        let result: Result
        do throws(PythonError) {
            let value = try Object(value)
            result = try self.result(of: call) { (encoder) throws(PythonError) in
                try encoder.term(value.pointer)
            }
        } catch { result = failure(of: call) }
        if hasPrinted, !call.isDetached { return answerAfterOutput(call, result) }
        context.end(taskOf: call)
        answer(call, result)
    }

    /// Has `py_output` send an answer when it has passed on what was printed: a loop does not wait for one of its tasks.
    private func answerAfterOutput(_ call: Call, _ result: Result) {
        let environment = Environment()
        let message = call.answer(environment.copy(result.term), in: environment)
        if !result.isBesideRequest { answers.clear() }
        let held = Environment.Shared(environment)
        context.outlet.whenPassedOn(for: call.beneficiary, context) { env in
            call.context.end(taskOf: call)
            // It may have been given up meanwhile.
            guard call.claimAnswer() else { return }
            held.send(from: env, to: call.caller, message)
            call.environment.clear()
        }
    }

    /// Answers a call that was begun at some time, where that was the thread's only work since.
    private func answer(_ call: Call, _ result: Result, since start: Int64? = nil) {
        // Whoever else answers it may be reading its environment: that is freed with the call then.
        guard call.claimAnswer() else { return answers.clear() }
        let isBeside = result.isBesideRequest
        if call.isDetached || result.isSmall && call.keep(result.term, isBesideRequest: isBeside) {
            if !isBeside { answers.clear() }
            if call.isDetached { call.environment.clear() }
            return
        }
        // Before it is sent: to wake the caller's scheduler takes long.
        if let start { context.learn(monotonicNanoseconds() - start) }
        if isBeside {
            let message = makeTuple(call.environment.pointer, call.tag, result.term)
            send(to: call.caller, call.environment, message)
        } else {
            send(to: call.caller, answers, call.answer(result.term, in: answers))
            // The caller may hold the call until its heap is collected, which can be long.
            call.environment.clear()
        }
    }

    /// `{ok, Value}` or an error.
    private struct Result {
        let term: Term
        /// Made in the environment of the request, as small answers are: that has room for them, and its memory
        /// comes from the scheduler of the caller, who will free it. What one thread makes and another frees goes
        /// a long way in the BEAM: a fifth of a small call. With a large request the caller would get that back.
        let isBesideRequest: Bool
        /// So small that a copy costs less than a message.
        var isSmall = false
    }

    /// What a call comes to; nil where a task of the event loop answers it.
    private func result(of call: Call) -> Result? {
        do throws(PythonError) {
            let (form, request) = unwrapped(call)
            guard let value = try evaluate(request, of: call) else {
                return Result(term: atoms.ok, isBesideRequest: isSmallRequest, isSmall: true)
            }
            switch form {
            case .task:
                if let task = try state.awaitable(value.pointer) {
                    try startTask(task, of: call)
                    return nil
                }
                return try result(of: call) { (encoder) throws(PythonError) in
                    try encoder.term(value.pointer)
                }
            case .term:
                return try result(of: call) { (encoder) throws(PythonError) in
                    try encoder.term(value.pointer)
                }
            case .reference:
                return try result(of: call) { (encoder) throws(PythonError) in
                    try encoder.reference(value.pointer)
                }
            case .iterator:
                let iterator = try self.iterator(over: value.pointer)
                return try result(of: call) { (encoder) throws(PythonError) in
                    try encoder.reference(iterator.pointer)
                }
            case .ownForm: return try ownForm(of: value, call)
            }
        } catch { return failure(of: call) }
    }

    /// What was raised.
    private func failure(of call: Call) -> Result {
        // Decided once: what describes it is Python code, and another thread may run meanwhile.
        let isBeside = isSmallRequest
        let exception = ExceptionTerm(env: environment(for: call, isBeside), state: state)
        return Result(term: exception.errorTerm(call.errorForm), isBesideRequest: isBeside)
    }

    /// Has the event loop of the context answer a call, by a task.
    private func startTask(_ awaitable: borrowing Object, of call: Call) throws(PythonError) {
        guard let thread = ContextThread.current else { throw runtimeError("no context runs here") }
        let loop = try thread.backgroundLoop()
        context.hasTasks = true
        let owner = try TaskOwnerObject.make(state.taskOwnerType, call)
        let task = try loop.start(awaitable.pointer, for: owner.pointer)
        let answer = try TaskAnswerObject.make(
            state.taskAnswerType, call, owner.pointer, isSmall: isSmallRequest)
        _ = try Object(
            cpython_call_method1(task.pointer, state.loopNames.addDoneCallback, answer.pointer))
        thread.background?.tasks[ObjectIdentifier(call)] = Py_NewRef(task.pointer)
        context.begin(taskOf: call)
    }

    /// An iterator over a value, or what an asynchronous one is iterated by.
    private func iterator(over value: PyPointer) throws(PythonError) -> Object {
        if let iterator = PyObject_GetIter(value) { return Object(owning: iterator) }
        guard PyErr_ExceptionMatches(cpython_TypeError()) != 0, let error = Exception.take() else {
            throw PythonError()
        }
        if let iterator = cpython_call_method0(value, state.loopNames.asyncIterator) {
            return Object(owning: iterator)
        }
        PyErr_Clear()
        error.restore()
        throw PythonError()
    }

    /// The object of a reference as a term, which is not such a reference again.
    private func ownForm(of value: borrowing Object, _ call: Call) throws(PythonError) -> Result {
        let isBeside = isSmallRequest
        let env = environment(for: call, isBeside)
        var encoder = Encoder(env: env, state: state)
        let term: Term
        if let form = try encoder.ownForm(value.pointer) {
            term = makeTuple(env, atoms.ok, form)
        } else {
            let reason =
                "an object of type \(typeName(of: value.pointer)) has no form of its own in Erlang: use "
                + "py:call_method/3 and py:getattr/2, or py:call(builtins, repr, [Ref]) for a text"
            term = makeError(env, atoms.notConvertible, reason)
        }
        return Result(term: term, isBesideRequest: isBeside)
    }

    @inline(__always)
    private func result(of call: Call, _ encode: (inout Encoder) throws(PythonError) -> Term)
        throws(PythonError) -> Result
    {
        // Decided once: encoding may run Python code, and another thread may run meanwhile.
        let isBeside = isSmallRequest
        let env = environment(for: call, isBeside)
        var encoder = Encoder(env: env, state: state)
        let term = makeTuple(env, atoms.ok, try encode(&encoder))
        return Result(
            term: term, isBesideRequest: isBeside, isSmall: encoder.terms <= CallRunner.smallResult)
    }

    /// As soon as the request is decoded.
    private var isSmallRequest: Bool { state.decodedBytes <= CallRunner.smallRequest }

    private func environment(for call: Call, _ isBeside: Bool) -> EnvPointer? {
        isBeside ? call.environment.pointer : answers.pointer
    }

    /// What becomes of the value of a request.
    private enum Form {
        /// A term, which is a reference only where the value has no other form.
        case term
        /// A reference to it, or to an iterator over it.
        case reference, iterator
        /// A term that is no reference.
        case ownForm
        /// What the value comes to where it is awaitable.
        case task
    }

    /// The form that a request asks for, and the request without that.
    private func unwrapped(_ call: Call) -> (Form, Term) {
        var arity: Int32 = 0
        var parts: UnsafePointer<Term>?
        guard enif_get_tuple(call.environment.pointer, call.request, &arity, &parts) != 0, let parts,
            arity == 2
        else { return (isNext(call) ? .task : .term, call.request) }
        switch parts[0] {
        case atoms.asynchronous: return (.task, parts[1])
        case atoms.collect: return (.task, call.request)
        case atoms.ref: return (.reference, parts[1])
        case atoms.stream: return (.iterator, parts[1])
        case atoms.toTerm: return (.ownForm, call.request)
        default: return (.term, call.request)
        }
    }

    private func isNext(_ call: Call) -> Bool {
        var arity: Int32 = 0
        var parts: UnsafePointer<Term>?
        return enif_get_tuple(call.environment.pointer, call.request, &arity, &parts) != 0 && arity == 4
            && parts?[0] == atoms.next
    }

    /// The value of a request, or nil for one that has none.
    private func evaluate(_ request: Term, of call: Call) throws(PythonError) -> Object? {
        let env = call.environment.pointer
        var arity: Int32 = 0
        var parts: UnsafePointer<Term>?
        guard enif_get_tuple(env, request, &arity, &parts) != 0, let parts else {
            throw valueError("the request could not be read")
        }
        let decoder = Decoder(env: env, state: state)
        switch (parts[0], arity) {
        case (atoms.call, 5):
            return try invoke(
                try callable(parts[1], parts[2], of: call, decoder), parts[3], keywords: parts[4], of: call,
                decoder)
        case (atoms.callMethod, 5):
            return try invoke(
                try attribute(parts[2], of: parts[1], decoder), parts[3], keywords: parts[4], of: call,
                decoder)
        case (atoms.getattr, 3): return try attribute(parts[2], of: parts[1], decoder)
        case (atoms.toTerm, 2): return try decoder.object(parts[1])
        case (atoms.eval, 3): return try eval(parts[1], locals: parts[2], of: call, decoder)
        case (atoms.collect, 2):
            guard let value = try evaluate(parts[1], of: call) else { return nil }
            let iterator = try self.iterator(over: value.pointer)
            guard PyIter_Check(iterator.pointer) != 0 else {
                return try state.callTasks("collect", [iterator.pointer])
            }
            return try Object(PySequence_List(iterator.pointer))
        case (atoms.setup, 2):
            // What sets a protocol factory now means this context's.
            guard let thread = ContextThread.current else { throw runtimeError("no context is set up here") }
            thread.isInSetup = true
            defer { thread.isInSetup = false }
            return try evaluate(parts[1], of: call)
        case (atoms.next, 4):
            return try StreamRunner(call: call, state: state).run(
                iterator: parts[1], count: parts[2], outbox: parts[3])
        case (atoms.exec, 2):
            let globals = try state.namespaces.dict(of: call.beneficiary, leftovers: state.leftovers)
            let code = try state.code(try source(parts[1], env), mode: Int32(cpython_file_input))
            _ = try Object(PyEval_EvalCode(code.pointer, globals.pointer, globals.pointer))
            return nil
        default: throw valueError("the request is of no known kind")
        }
    }

    // MARK: call

    private func invoke(
        _ callable: consuming Object, _ arguments: Term, keywords: Term, of call: Call, _ decoder: Decoder
    ) throws(PythonError) -> Object {
        let channels = state.decodedChannels
        var iterator = arguments
        var head: Term = 0
        var keywordCount = 0
        _ = enif_get_map_size(decoder.env, keywords, &keywordCount)
        guard keywordCount == 0 else {
            let list = try decoder.object(arguments)
            let positional = try Object(PyList_AsTuple(list.pointer))
            let named = try decoder.object(keywords)
            letGoOfChannels(of: call, since: channels)
            return try Object(PyObject_Call(callable.pointer, positional.pointer, named.pointer))
        }
        var length: UInt32 = 0
        guard enif_get_list_length(decoder.env, arguments, &length) != 0 else {
            throw typeError("the arguments must be a proper list")
        }
        // One slot before the arguments belongs to vectorcall. Few arguments stay on the stack.
        guard length <= 16 else {
            let list = try decoder.object(arguments)
            let positional = try Object(PyList_AsTuple(list.pointer))
            letGoOfChannels(of: call, since: channels)
            return try Object(PyObject_Call(callable.pointer, positional.pointer, nil))
        }
        let count = Int(length)
        let result = withUnsafeTemporaryAllocation(of: PyPointer?.self, capacity: count + 1) {
            slots -> PyPointer? in
            slots.initialize(repeating: nil)
            defer { for index in 1..<(count + 1) where slots[index] != nil { Py_DecRef(slots[index]) } }
            return returning { () throws(PythonError) in
                var index = 1
                while enif_get_list_cell(decoder.env, iterator, &head, &iterator) != 0, index <= count {
                    slots[index] = try decoder.object(head).take()
                    index += 1
                }
                letGoOfChannels(of: call, since: channels)
                guard let first = slots.baseAddress else { throw PythonError() }
                return try Object(cpython_call(callable.pointer, first + 1, count)).take()
            }
        }
        return try Object(result)
    }

    /// A byte channel ends for Python when Erlang has no reference any more: the request must not be the last.
    @inline(__always)
    private func letGoOfChannels(of call: Call, since before: Int) {
        if state.decodedChannels != before { call.forgetArguments() }
    }

    /// `Function` of `Module`, which is imported where it is not yet. Names may be dotted.
    private func callable(_ module: Term, _ function: Term, of call: Call, _ decoder: Decoder)
        throws(PythonError) -> Object
    {
        let moduleName = try name(module, "the module", decoder)
        let functionName = try name(function, "the function", decoder)
        if isMain(moduleName.pointer), let own = try ownName(functionName.pointer, of: call) {
            return own
        }
        // In the module of the same name, where the process has not defined the name.
        let holder = try self.module(moduleName.pointer)
        if let found = PyObject_GetAttr(holder.pointer, functionName.pointer) { return Object(owning: found) }
        PyErr_Clear()
        // Another thread may be importing the module just now: this waits for it.
        let imported = try imported(moduleName.pointer)
        if let found = PyObject_GetAttr(imported.pointer, functionName.pointer) {
            return Object(owning: found)
        }
        return try dotted(functionName.pointer, of: imported)
    }

    /// An attribute of the object that a reference is to. Names may be dotted.
    private func attribute(_ name: Term, of reference: Term, _ decoder: Decoder) throws(PythonError)
        -> Object
    {
        let holder = try decoder.object(reference)
        let name = try self.name(name, "the name", decoder)
        if let found = PyObject_GetAttr(holder.pointer, name.pointer) { return Object(owning: found) }
        return try dotted(name.pointer, of: holder)
    }

    /// Names of atoms are interned, as `main` is; others are compared.
    private func isMain(_ name: PyPointer) -> Bool {
        name == state.names.main || PyUnicode_Compare(name, state.names.main) == 0
    }

    /// A look into `sys.modules`, without the question whether the import has ended, which takes longer than
    /// a small call: `callable` asks it where a function is missing.
    private func module(_ name: PyPointer) throws(PythonError) -> Object {
        if let modules = PyImport_GetModuleDict(), let known = PyDict_GetItemWithError(modules, name) {
            return Object(retaining: known)
        }
        if PyErr_Occurred() != nil { throw PythonError() }
        return try imported(name)
    }

    /// Imports a module. Where another thread was at it and was interrupted, `PyImport_Import` has waited for that, and
    /// then finds no module: it is imported anew.
    private func imported(_ name: PyPointer) throws(PythonError) -> Object {
        for _ in 0..<CallRunner.importAttempts {
            if let module = PyImport_Import(name) { return Object(owning: module) }
            guard PyErr_ExceptionMatches(cpython_KeyError()) != 0, let error = Exception.take() else {
                throw PythonError()
            }
            // Python code that raises one leaves a traceback.
            if let traceback = PyException_GetTraceback(error.value.pointer) {
                Py_DecRef(traceback)
                PyErr_SetObject(asObject(cpython_type(error.value.pointer)), error.value.pointer)
                throw PythonError()
            }
        }
        return try Object(PyImport_Import(name))
    }

    /// How often that is tried again: there are modules that take themselves out of `sys.modules`.
    private static let importAttempts = 3

    /// A name that the calling process has defined by `py:exec`, or an attribute of one.
    private func ownName(_ name: PyPointer, of call: Call) throws(PythonError) -> Object? {
        let globals = try state.namespaces.dict(of: call.beneficiary, leftovers: state.leftovers)
        if let found = PyDict_GetItemWithError(globals.pointer, name) { return Object(retaining: found) }
        if PyErr_Occurred() != nil { throw PythonError() }
        let path = try text(of: name).split(separator: ".", omittingEmptySubsequences: false)
        guard path.count > 1, let first = path.first else { return nil }
        let key = try newString(String(first))
        if let found = PyDict_GetItemWithError(globals.pointer, key.pointer) {
            return try attribute(path.dropFirst(), of: Object(retaining: found))
        }
        if PyErr_Occurred() != nil { throw PythonError() }
        return nil
    }

    private func attribute(_ path: ArraySlice<Substring>, of holder: consuming Object) throws(PythonError)
        -> Object
    {
        var object = holder
        for part in path {
            let name = try newString(String(part))
            object = try Object(PyObject_GetAttr(object.pointer, name.pointer))
        }
        return object
    }

    /// `Class.method` and deeper. The error of the whole name is kept where there is no dot in it.
    private func dotted(_ name: PyPointer, of holder: borrowing Object) throws(PythonError) -> Object {
        let exception = Exception.take()
        let path = try text(of: name).split(separator: ".", omittingEmptySubsequences: false)
        guard path.count > 1 else {
            if let exception {
                PyErr_SetObject(asObject(cpython_type(exception.value.pointer)), exception.value.pointer)
            }
            throw PythonError()
        }
        return try attribute(path[...], of: Object(retaining: holder.pointer))
    }

    private func name(_ term: Term, _ what: String, _ decoder: Decoder) throws(PythonError) -> Object {
        if enif_is_atom(decoder.env, term) != 0 { return try decoder.name(ofAtom: term) }
        guard let name = text(decoder.env, term) else {
            throw typeError("\(what) must be an atom, a string or a binary in UTF-8")
        }
        return try newString(name)
    }

    // MARK: eval and exec

    private func eval(_ code: Term, locals: Term, of call: Call, _ decoder: Decoder) throws(PythonError)
        -> Object
    {
        let source = try source(code, decoder.env)
        // As Python's own eval does, blanks before the expression are allowed.
        let compiled = try state.code(
            String(source.drop { $0 == " " || $0 == "\t" || $0 == "\n" }), mode: Int32(cpython_eval_input))
        let globals = try state.namespaces.dict(of: call.beneficiary, leftovers: state.leftovers)
        var localCount = 0
        _ = enif_get_map_size(decoder.env, locals, &localCount)
        if localCount == 0 {
            return try Object(PyEval_EvalCode(compiled.pointer, globals.pointer, globals.pointer))
        }
        // One dict for both, so that lambdas and comprehensions see the locals too.
        let merged = try Object(PyDict_Copy(globals.pointer))
        let channels = state.decodedChannels
        let given = try decoder.object(locals)
        letGoOfChannels(of: call, since: channels)
        guard PyDict_Update(merged.pointer, given.pointer) == 0 else { throw PythonError() }
        return try Object(PyEval_EvalCode(compiled.pointer, merged.pointer, merged.pointer))
    }

    private func source(_ term: Term, _ env: EnvPointer?) throws(PythonError) -> String {
        guard let source = text(env, term) else { throw typeError("the code must be iodata in UTF-8") }
        return source
    }
}
