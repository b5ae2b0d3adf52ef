%% What the modules of a process stream share: its process' state.

%% How many messages of a stream its owner may have in its mailbox before reading pauses, and for how many
%% milliseconds that is first and at most until it is looked at again.
-define(MAILBOX, 64).
-define(PAUSE, 1).
-define(LONGEST_PAUSE, 64).
%% How many chunks are read before others have their turn.
-define(TURN, 16).
-define(NO_LIMIT, (1 bsl 59)).

-record(state, {native :: causeway_nif:process(),
                os_pid :: pos_integer(),
                %% Who gets the messages; undefined with a module.
                owner :: pid() | undefined,
                module :: module() | undefined,
                data :: term(),
                timer :: reference() | undefined,
                mode = active :: active | passive | {count, Left :: non_neg_integer(), told | once},
                window :: pos_integer(),
                %% What the plain active mode may send before it looks at the owner's mailbox.
                budget = ?MAILBOX :: integer(),
                pause = ?PAUSE :: pos_integer(),
                is_paused = false :: boolean(),
                %% ready: to be read. watched: the core tells when there is something. looked: it does not, and a
                %% message to look again is on its way. eof: over.
                stdout = ready :: ready | watched | looked | eof,
                stderr = ready :: ready | watched | looked | eof,
                is_looking = false :: boolean(),
                is_pumping = false :: boolean(),
                receivers = queue:new() :: queue:queue({gen_server:from(), reference() | undefined}),
                high :: pos_integer(),
                busy :: block | return,
                writers = [] :: [gen_server:from()],
                %% Channels in the place of the consumer.
                sinks = #{} :: causeway_process_sinks:sinks(),
                %% The channel that standard input comes from; a reference when it is to tell that there is more.
                source :: {py_byte_channel:channel(), ready | full | reference()} | undefined,
                is_terminal :: boolean(),
                pace = causeway_process_pace:new() :: causeway_process_pace:pace(),
                has_told_stdin = false :: boolean(),
                waiting = [] :: [gen_server:from()],
                grace :: non_neg_integer(),
                %% Once the program has ended: how, and what each output had then that is to be delivered.
                ending :: causeway_nif:ending() | lost | undefined,
                left = {0, 0} :: {integer(), integer()},
                has_grace = false :: boolean(),
                is_grace_over = false :: boolean(),
                %% What the guardian has said: whether nothing is left of the program.
                is_gone = false :: boolean(),
                is_ending = false :: boolean(),
                %% Whether output was cut off because somebody held the pipe.
                is_held = false :: boolean(),
                %% In the passive mode: the reason of an end that nobody has asked for yet.
                final :: term()}).
