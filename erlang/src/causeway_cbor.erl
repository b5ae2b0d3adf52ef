%% @doc CBOR (RFC 8949), as the frames of streaming calls are written.
%%
%% Atoms become text, but `true' and `false', and `nil' and `undefined', which become null. Binaries become byte
%% strings, lists and tuples arrays, maps maps whose keys stand in Erlang's order. Integers have any size; floats have
%% 64 bits. Lengths are definite.
%%
%% What is read becomes: text and byte strings binaries, null and undefined `nil', arrays lists, an infinite number or
%% what is no number the atoms `infinity', `neg_infinity' and `nan'. Tags other than those of large integers are left
%% out. Larger binaries are parts of the one that is read, not copies.
%%
%% A large term is converted on a dirty scheduler. `not_loaded' is raised before the application has started.
-module(causeway_cbor).

-export([encode/1, decode/1, decode_first/1]).

%% @doc A term as CBOR. Pids, references, ports, funs, improper lists, bitstrings and what is nested more than 200
%% levels deep have no form: the text says so.
-spec encode(term()) -> {ok, binary()} | {error, {cbor, Text :: binary()}}.
encode(Term) ->
    case causeway_nif:cbor_encode(Term) of
        {ok, _} = Encoded -> Encoded;
        {error, Text} -> {error, {cbor, Text}}
    end.

%% @doc The term of a binary that holds one and nothing more. The text says what is wrong with another one,
%% and where. Raises `badarg' for what is no binary.
-spec decode(binary()) -> {ok, term()} | {error, {cbor, Text :: binary()}}.
decode(Binary) ->
    case decode_first(Binary) of
        {ok, Term, <<>>} -> {ok, Term};
        {ok, _Term, Rest} -> {error, {cbor, iolist_to_binary(io_lib:format("~b bytes follow the value", [byte_size(Rest)]))}};
        {error, _} = Error -> Error
    end.

%% @doc The term with which a binary begins, and what follows. Otherwise as {@link decode/1}.
-spec decode_first(binary()) -> {ok, term(), Rest :: binary()} | {error, {cbor, Text :: binary()}}.
decode_first(Binary) ->
    case causeway_nif:cbor_decode(Binary) of
        {ok, _Term, _Rest} = Decoded -> Decoded;
        {error, Text} -> {error, {cbor, Text}};
        badarg -> error(badarg, [Binary])
    end.
