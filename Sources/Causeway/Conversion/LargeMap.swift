import Beam
import CErlNif

/// An Erlang map of more than 32 keys, built key by key.
///
/// `enif_make_map_from_arrays` sorts the hashes of such a map with a quicksort that now and then asks the
/// scheduler of the calling thread for a random number. Our threads have none: OTP 25 crashes. The same
/// happens where a map grows from 32 keys to 33. So a map begins as a copy of one that has 33 keys already,
/// made on a scheduler when the library was loaded; those are taken out at the end.
///
/// Each insertion leaves some 600 bytes of garbage, so the map has an environment of its own, which is
/// replaced from time to time by one with a copy of what lives.
struct LargeMap: ~Copyable {
    /// Up to so many keys a map is flat, and `enif_make_map_from_arrays` is safe.
    static let threshold = 32

    private var environment = Environment()
    private var map: Term
    private var count = 0
    private var sinceCopy = 0

    init() { map = environment.copy(seed.map) }

    /// Where the next key and value are to be made. It changes with insertions.
    var env: EnvPointer? { environment.pointer }

    /// Adds a key; false when the map has it already.
    mutating func insert(_ key: Term, _ value: Term) -> Bool {
        var present: Term = 0
        guard enif_get_map_value(env, map, key, &present) == 0,
            enif_make_map_put(env, map, key, value, &map) != 0
        else { return false }
        count += 1
        sinceCopy += 1
        if sinceCopy > max(4096, count / 2) { compact() }
        return true
    }

    private mutating func compact() {
        let next = Environment()
        map = next.copy(map)
        environment = consume next
        sinceCopy = 0
    }

    /// The whole map, in another environment.
    consuming func finish(in target: EnvPointer?) -> Term {
        for key in seed.keys { _ = enif_make_map_remove(env, map, key, &map) }
        return enif_make_copy(target, map)
    }

    /// The map that others begin as. Its keys are references, which no Python object becomes.
    struct Seed {
        fileprivate var map: Term = 0
        fileprivate var keys: [Term] = []
        private var environment: EnvPointer?

        init() {}

        /// On a scheduler, while the library loads. Its environment lives for ever.
        init(onScheduler env: EnvPointer?) {
            let environment = Environment()
            for _ in 0...LargeMap.threshold { keys.append(enif_make_ref(environment.pointer)) }
            var values = keys
            _ = enif_make_map_from_arrays(environment.pointer, &keys, &values, values.count, &map)
            self.environment = environment.release()
        }
    }
}

/// Filled once while the NIF library loads; read-only afterwards.
nonisolated(unsafe) var seed = LargeMap.Seed()
