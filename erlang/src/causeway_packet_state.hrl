%% What the modules of a packet connection share: its process' state. Each of them has its own part of it.

%% Of a row of the table: its tag, the caller, the reference that the caller waits for, the timer, and the channel.
-record(request, {tag, caller, reference, timer, channel}).

-record(s, {
    parent :: pid(),
    debug = [],
    options :: map(),
    transport :: causeway_packet_transport:opened(),
    handlers = #{} :: #{non_neg_integer() => causeway_packet_handler:handler()},
    %% Our requests. Those with a tag up to `sent' are on their way, the others wait for their turn.
    table :: ets:table(),
    tag = 0 :: non_neg_integer(),
    sent = 0 :: non_neg_integer(),
    outstanding = 0 :: non_neg_integer(),
    line = queue:new() :: queue:queue(),
    line_length = 0 :: non_neg_integer(),
    callers = #{} :: #{pid() => reference()},
    %% Callers that have died and requests that were cancelled, whose rows are still there.
    gone = #{} :: #{pid() | reference() => []},
    %% The peer's requests: serial number, size and timer of each that is not answered, those that wait for a worker.
    in_hand = #{} :: #{{Channel :: non_neg_integer(), Tag :: non_neg_integer()} =>
                           {pos_integer(), non_neg_integer(), undefined | reference()}},
    in_hand_bytes = 0 :: non_neg_integer(),
    serial = 0 :: non_neg_integer(),
    jobs = queue:new() :: queue:queue(),
    idle = [] :: [pid()],
    busy = #{} :: #{pid() => term()},
    %% What is to be written: what has come since the last write, newest first; what the transport has not taken.
    out = [] :: iolist(),
    out_size = 0 :: non_neg_integer(),
    unsent = [] :: [binary()],
    unsent_size = 0 :: non_neg_integer(),
    output = open :: open | blocked | eof | dead,
    is_eof_queued = false :: boolean(),
    stalled :: undefined | {reference(), non_neg_integer()},
    %% What was read: the beginning of a packet, and pieces of it that came later, newest first. Or how much is there of a
    %% large one that is read to where it stays.
    input = ready :: ready | watched | paused | eof,
    rest = <<>> :: binary(),
    pieces = [] :: [binary()],
    pieces_size = 0 :: non_neg_integer(),
    filled = none :: none | non_neg_integer(),
    needed = 1 :: non_neg_integer(),
    is_full = false :: boolean(),
    %% Nothing more comes: all that is there is looked at.
    is_last = false :: boolean(),
    %% The ends.
    is_closing = false :: boolean(),
    is_half_closed = false :: boolean(),
    erq = false :: boolean(),
    peer_erq = false :: boolean(),
    drain :: undefined | reference(),
    ended = false :: false | {true, Reason :: term()},
    %% How many bytes had gone through when the garbage was collected last.
    swept = 0 :: non_neg_integer(),
    %% Keepalive: what had been read when it was looked at last.
    alive = 0 :: non_neg_integer(),
    probes = 0 :: non_neg_integer(),
    is_probing = false :: boolean(),
    %% Counters.
    requests = 0, responses = 0, peer_requests = 0, peer_responses = 0, rejected = 0, cancelled = 0, timeouts = 0,
    stray = 0, bytes_in = 0, bytes_out = 0, packets_in = 0, packets_out = 0, reads = 0, writes = 0
}).

%% The most that comes before a payload.
-define(HEAD, 40).
%% A channel that nobody opens: whoever is asked there says at least that it is unknown.
-define(PROBE_CHANNEL, 16#7fffffff).
