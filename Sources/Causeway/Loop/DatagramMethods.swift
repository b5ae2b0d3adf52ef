import CPython
import Python
import Streams

/// The methods of transports of datagrams.
enum DatagramMethods {
    static func makeType(in module: PyPointer, of base: PyPointer) throws(PythonError) -> PyType {
        try TransportObject.makeType(in: module, of: base, name: "_causeway._DatagramTransport", methods)
    }

    private static func transport(_ me: PyPointer?) throws(PythonError) -> DatagramTransport {
        guard let transport = try TransportObject.transport(me) as? DatagramTransport else {
            throw typeError("a transport of datagrams is needed")
        }
        return transport
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "_begin",
                "_begin($self, loop, fd, protocol, is_unix, is_connected, /)\n--\n\nThe transport of a socket, which stays the caller's to close."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 5, let me, let arguments, let loop = arguments[0], let fd = arguments[1],
                        let receiver = arguments[2], let isUnix = arguments[3],
                        let isConnected = arguments[4]
                    else { throw typeError("_begin() takes 5 arguments (\(count) given)") }
                    try TransportObject.begin(me, loop, fd, receiver) { core, fd, context in
                        DatagramTransport(
                            core, fd, me, isUnix: isUnix == cpython_true(),
                            isConnected: isConnected == cpython_true(), context: context)
                    }
                    return newNone()
                }
            },
            method(
                "sendto",
                keywords:
                    "sendto($self, data, addr=None)\n--\n\nSend a datagram, without waiting: to an address, or to the peer of a connected socket.\n\nWhat is sent in one turn of the loop goes out at its end. Raises TypeError for what is no bytes-like object or no address, and ValueError for another address than the one that the endpoint was made for."
            ) { me, arguments, count, names in
                returning { () throws(PythonError) in
                    let transport = try DatagramMethods.transport(me)
                    var given = Arguments(of: "sendto", arguments, count, names)
                    let data = try given.next("data")
                    var address = try given.next("addr")
                    try given.end()
                    guard let data else { throw typeError("sendto() misses the argument 'data'") }
                    if address == cpython_none() { address = nil }
                    let bytes = try TransportObject.bytes(data)
                    if let address, let only = transport.onlyAddress, address != only {
                        let same = PyObject_RichCompareBool(address, only, Py_EQ)
                        if same < 0 { throw PythonError() }
                        if same == 0 {
                            throw valueError("Invalid address: must be None or \(describe(only))")
                        }
                    }
                    guard transport.lost == 0 else {
                        transport.writtenInVain()
                        if let me { _ = try Object(cpython_call_method_named(me, "_written_in_vain")) }
                        return newNone()
                    }
                    try transport.send(bytes, to: address ?? transport.onlyAddress)
                    return newNone()
                }
            },
            method(
                "_only_to", "_only_to($self, address, /)\n--\n\nThe one address that may be sent to."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let address = arguments?[0] else {
                        throw typeError("_only_to() takes an address")
                    }
                    let transport = try DatagramMethods.transport(me)
                    transport.allow(only: address)
                    return newNone()
                }
            },
            method("_set_protocol", "_set_protocol($self, protocol, /)\n--\n\nWho is called from now on.") {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let receiver = arguments?[0] else {
                        throw typeError("_set_protocol() takes a protocol")
                    }
                    try DatagramMethods.transport(me).set(receiver)
                    return newNone()
                }
            },
            method("_try_again", "_try_again($self, /)\n--\n\nSend what had to wait for a receiver.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try DatagramMethods.transport(me).tryAgain()
                    return newNone()
                }
            },
        ]
    }
}
