import Beam
import CErlNif
import Streams

/// Erlang terms as CBOR: atoms as text but `true`, `false`, `nil` and `undefined`, binaries as bytes, tuples and lists as
/// arrays. The pairs of a map stand in the order of their keys as Erlang compares them.
struct CborTermWriter {
    /// How deep terms may be nested. A frame takes under 1 KB of the stack of a dirty scheduler, which has 320 KB.
    static let maximumDepth = 200

    let env: EnvPointer?
    private(set) var writer = CborWriter()
    /// How many terms may still be written before somebody else has to go on.
    private var left: Int

    init(env: EnvPointer?, items: Int) {
        self.env = env
        left = items
    }

    /// Why it goes no further.
    enum Stop: Error {
        case noForm(String)
        case outOfItems
    }

    mutating func write(_ term: Term, depth: Int = 0) throws(Stop) {
        guard depth < CborTermWriter.maximumDepth else {
            throw .noForm("a term is nested more than \(CborTermWriter.maximumDepth) levels deep")
        }
        left -= 1
        // Large binaries are work as well.
        guard left - writer.bytes.count / 64 >= 0 else { throw .outOfItems }
        switch enif_term_type(env, term) {
        case ERL_NIF_TERM_TYPE_ATOM: try atom(term)
        case ERL_NIF_TERM_TYPE_INTEGER: try integer(term)
        case ERL_NIF_TERM_TYPE_BITSTRING: try binary(term)
        case ERL_NIF_TERM_TYPE_FLOAT:
            var value = 0.0
            _ = enif_get_double(env, term, &value)
            writer.float(value)
        case ERL_NIF_TERM_TYPE_LIST: try list(term, depth)
        case ERL_NIF_TERM_TYPE_TUPLE: try tuple(term, depth)
        case ERL_NIF_TERM_TYPE_MAP: try map(term, depth)
        default: throw .noForm("pids, references, ports and funs have no form in CBOR")
        }
    }

    private mutating func atom(_ term: Term) throws(Stop) {
        switch term {
        case atoms.true: writer.bool(true)
        case atoms.false: writer.bool(false)
        case atoms.nil, atoms.undefined: writer.null()
        default:
            guard var name = atomName(env, term) else { throw .noForm("an atom has no readable name") }
            name.withUTF8 { writer.text(UnsafeRawBufferPointer($0)) }
        }
    }

    private mutating func integer(_ term: Term) throws(Stop) {
        var signed = 0
        if enif_get_long(env, term, &signed) != 0 { return writer.integer(signed) }
        var unsigned: UInt = 0
        if enif_get_ulong(env, term, &unsigned) != 0 { return writer.unsigned(UInt64(unsigned)) }
        let number = withBigInteger(env, term) { isNegative, magnitude in
            CborBigNumber(isNegative: isNegative, littleEndian: magnitude)
        }
        guard let number else { throw .noForm("an integer could not be read") }
        number.write(to: &writer)
    }

    private mutating func binary(_ term: Term) throws(Stop) {
        var binary = ErlNifBinary()
        guard enif_inspect_binary(env, term, &binary) != 0 else {
            throw .noForm("a bitstring whose length is not a whole number of bytes has no form in CBOR")
        }
        writer.bytes(UnsafeRawBufferPointer(start: binary.data, count: binary.size))
    }

    private mutating func list(_ term: Term, _ depth: Int) throws(Stop) {
        var length: UInt32 = 0
        guard enif_get_list_length(env, term, &length) != 0 else {
            throw .noForm("an improper list has no form in CBOR")
        }
        writer.array(Int(length))
        var rest = term
        var head: Term = 0
        while enif_get_list_cell(env, rest, &head, &rest) != 0 { try write(head, depth: depth + 1) }
    }

    private mutating func tuple(_ term: Term, _ depth: Int) throws(Stop) {
        var arity: Int32 = 0
        var elements: UnsafePointer<Term>?
        guard enif_get_tuple(env, term, &arity, &elements) != 0 else {
            throw .noForm("a tuple could not be read")
        }
        writer.array(Int(arity))
        guard let elements else { return }
        for index in 0..<Int(arity) { try write(elements[index], depth: depth + 1) }
    }

    private mutating func map(_ term: Term, _ depth: Int) throws(Stop) {
        var pairs: [(key: Term, value: Term)] = []
        var iterator = ErlNifMapIterator()
        guard enif_map_iterator_create(env, term, &iterator, ERL_NIF_MAP_ITERATOR_FIRST) != 0 else {
            throw .noForm("a map could not be read")
        }
        var pair: (key: Term, value: Term) = (0, 0)
        while enif_map_iterator_get_pair(env, &iterator, &pair.key, &pair.value) != 0 {
            pairs.append(pair)
            _ = enif_map_iterator_next(env, &iterator)
        }
        enif_map_iterator_destroy(env, &iterator)
        guard pairs.count <= left else { throw .outOfItems }
        // Small maps come in that order on OTP 25, in others it may be any.
        pairs.sort { enif_compare($0.key, $1.key) < 0 }
        writer.map(pairs.count)
        for pair in pairs {
            try write(pair.key, depth: depth + 1)
            try write(pair.value, depth: depth + 1)
        }
    }
}

/// A number beyond 64 bits as CBOR has it.
struct CborBigNumber {
    private let isNegative: Bool
    /// The most significant byte first; of a negative number that of -1 - n.
    private var magnitude: [UInt8]

    /// From what Erlang and Python give: the magnitude, the least significant byte first.
    init(isNegative: Bool, littleEndian: UnsafeRawBufferPointer) {
        self.isNegative = isNegative
        magnitude = Array(littleEndian)
        while magnitude.last == 0 { magnitude.removeLast() }
        magnitude.reverse()
        if isNegative { decrement() }
    }

    /// The number is not 0.
    private mutating func decrement() {
        for index in magnitude.indices.reversed() {
            magnitude[index] &-= 1
            if magnitude[index] != 0xFF { break }
        }
        while magnitude.first == 0 { magnitude.removeFirst() }
    }

    /// Those that fit 64 bits have no tag.
    func write(to writer: inout CborWriter) {
        guard magnitude.count <= 8 else {
            return writer.bigInteger(isNegative: isNegative, magnitude: magnitude)
        }
        let number = magnitude.reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
        if isNegative { writer.negative(number) } else { writer.unsigned(number) }
    }

    /// The magnitude of the number -1 - n, or n itself, the least significant byte first.
    static func littleEndian(isNegative: Bool, of content: some Sequence<UInt8>) -> [UInt8] {
        var magnitude = Array(content)
        magnitude.reverse()
        guard isNegative else { return magnitude }
        for index in magnitude.indices {
            magnitude[index] &+= 1
            if magnitude[index] != 0 { return magnitude }
        }
        return magnitude + [1]
    }
}
