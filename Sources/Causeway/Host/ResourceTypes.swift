import Beam

/// The kinds of Swift objects that Erlang holds by reference.
struct ResourceTypes {
    var context = ResourceType<Context>()
    var call = ResourceType<Call>()
    var callback = ResourceType<Callback>()
    var outputTicket = ResourceType<OutputTicket>()
    var streamOutbox = ResourceType<StreamOutbox>()
    var object = ResourceType<ObjectReference>()
    var namespace = ResourceType<Namespace>()
    var channel = ResourceType<ChannelHandle>()
    var channelWaiter = ResourceType<ErlangWaiter>()
    var notification = ResourceType<Notification>()
    var message = ResourceType<HeldMessage>()
    var process = ResourceType<ProcessStream>()
    var wire = ResourceType<Wire>()
    var rpcHalf = ResourceType<RpcHalf>()
    var rpcWaiter = ResourceType<RpcWaiter>()

    init() {}

    /// Opens all of them; false when the BEAM refuses one.
    mutating func open(_ env: EnvPointer?) -> Bool {
        guard let context = ResourceType<Context>(env, name: "context"),
            let call = ResourceType<Call>(env, name: "call"),
            let callback = ResourceType<Callback>(env, name: "callback"),
            let outputTicket = ResourceType<OutputTicket>(env, name: "output_ticket"),
            let streamOutbox = ResourceType<StreamOutbox>(env, name: "stream_outbox"),
            let object = ResourceType<ObjectReference>(env, name: "object"),
            let namespace = ResourceType<Namespace>(env, name: "namespace"),
            let channel = ResourceType<ChannelHandle>(env, name: "byte_channel"),
            let channelWaiter = ResourceType<ErlangWaiter>(env, name: "byte_channel_waiter"),
            let notification = ResourceType<Notification>(env, name: "byte_channel_notification"),
            let message = ResourceType<HeldMessage>(env, name: "message"),
            let process = ResourceType<ProcessStream>(env, name: "process_stream"),
            let wire = ResourceType<Wire>(env, name: "wire"),
            let rpcHalf = ResourceType<RpcHalf>(env, name: "rpc_half"),
            let rpcWaiter = ResourceType<RpcWaiter>(env, name: "rpc_waiter")
        else { return false }
        self.context = context
        self.call = call
        self.callback = callback
        self.outputTicket = outputTicket
        self.streamOutbox = streamOutbox
        self.object = object
        self.namespace = namespace
        self.channel = channel
        self.channelWaiter = channelWaiter
        self.notification = notification
        self.message = message
        self.process = process
        self.wire = wire
        self.rpcHalf = rpcHalf
        self.rpcWaiter = rpcWaiter
        return true
    }
}

/// Filled once while the NIF library loads; read-only afterwards.
nonisolated(unsafe) var resourceTypes = ResourceTypes()
