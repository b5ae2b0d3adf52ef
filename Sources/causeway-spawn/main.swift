import Glibc
import Streams

// The helper of a node, which starts programs for it. The node has put a socket into descriptor 3, by which the
// requests come: see SpawnHelper.

let kind = try? Descriptor.kind(of: Zygote.socket)
guard kind == .socket else {
    let text: StaticString = "causeway-spawn is started by causeway's core, and by nobody else.\n"
    _ = write(2, text.utf8Start, text.utf8CodeUnitCount)
    exit(2)
}
var zygote = Zygote(requests: Descriptor(owning: Zygote.socket))
zygote.run()
