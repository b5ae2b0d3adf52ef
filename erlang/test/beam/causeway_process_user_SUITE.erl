%% @doc Programs of a node that is not root's: what it may not is an error, and what it has started is ended all the same.
-module(causeway_process_user_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [other_users, itself, priorities_and_limits, directories_and_files, control_groups, terminal, node_killed].

init_per_suite(Config) ->
    case nobody_ct:run("halt().") of
        {skip, _} = Skip -> Skip;
        {0, _} -> Config
    end.

end_per_suite(_Config) -> ok.

%% What expressions are in a node of nobody's, where S is the module.
evaluated(Expression) ->
    Code = ["{ok, _} = application:ensure_all_started(causeway), S = causeway_process_stream, ",
            "io:format(\"result ~0p.~n\", [begin ", Expression, " end]), halt()."],
    case nobody_ct:run(lists:flatten(Code)) of
        {0, Output} ->
            case re:run(Output, "result (.*)\n", [{capture, all_but_first, list}]) of
                {match, [Text]} ->
                    {ok, Tokens, _} = erl_scan:string(Text),
                    erl_parse:parse_term(Tokens);
                nomatch -> {error, Output}
            end;
        {_, Output} ->
            {error, Output}
    end.

other_users(_Config) ->
    {ok, Results} = evaluated("[S:open(\"true\", [], Options) || Options <- [#{uid => 1}, #{uid => root}, #{gid => 1}, #{groups => [1]}, "
                              "#{uid => \"no-such-user\"}]]"),
    [?assertMatch({error, {Step, eperm, <<_/binary>>}} when Step =:= uid; Step =:= gid; Step =:= groups, Result) || Result <- lists:sublist(Results, 4)],
    ?assertMatch({error, {uid, enoent, _}}, lists:nth(5, Results)),
    {error, {_, _, Text}} = hd(Results),
    ?assertMatch({match, _}, re:run(Text, "only root")).

%% Who it is already it may be.
itself(_Config) ->
    {ok, Result} = evaluated("{ok, #{stdout := Out}} = S:run(\"id\", [\"-u\"], #{uid => list_to_integer(string:trim(os:cmd(\"id -u\")))}), "
                             "{Out, list_to_binary(os:cmd(\"id -u\"))}"),
    ?assertEqual(element(1, Result), element(2, Result)).

priorities_and_limits(_Config) ->
    {ok, Results} = evaluated("[S:run(\"true\", [], #{nice => -5}), S:run(\"sh\", [\"-c\", \"nice\"], #{nice => 5}), "
                              "S:run(\"true\", [], #{rlimits => #{nofile => {10, 1000000000}}})]"),
    ?assertMatch([{error, {nice, _, _}}, {ok, #{stdout := <<"5\n">>}}, {error, {rlimits, eperm, _}}], Results).

directories_and_files(Config) ->
    Directory = filename:join("/tmp", "causeway-user-" ++ os:getpid()),
    ok = file:make_dir(Directory),
    File = filename:join(Directory, "program"),
    ok = file:write_file(File, "#!/bin/sh\necho no\n"),
    ok = file:change_mode(File, 8#700),
    try
        {ok, Results} = evaluated(io_lib:format(
            "[S:open(~p), S:open(\"true\", [], #{stdout => {file, ~p}}), S:open(\"cat\", [], #{stdin => {file, ~p}})]",
            [File, filename:join(Directory, "out"), File])),
        ?assertMatch([{error, eacces}, {error, {stdout, eacces, _}}, {error, {stdin, eacces, _}}], Results),
        ok = file:change_mode(Directory, 8#700),
        {ok, Inside} = evaluated(io_lib:format("S:open(\"true\", [], #{cd => ~p})", [Directory])),
        ?assertMatch({error, {cd, eacces, _}}, Inside)
    after
        ok = file:del_dir_r(Directory)
    end,
    Config.

%% Without rights, which both versions say.
control_groups(_Config) ->
    {ok, Results} = evaluated("[S:open(\"true\", [], #{cgroup => #{}, cgroup_path => \"causeway-none\"}), "
                              "S:open(\"true\", [], #{cgroup_controllers => [\"memory\"], cgroup_path => \"causeway-none\"})]"),
    [?assertMatch({error, {cgroup, _, <<_/binary>>}}, Result) || Result <- Results].

terminal(_Config) ->
    ?assertMatch({ok, {ok, #{stdout := <<"9 99\r\n">>}}}, evaluated("S:run(\"stty\", [\"size\"], #{pty => {9, 99}})")).

node_killed(_Config) ->
    Script = "trap '' TERM; echo $$; setsid sh -c 'trap \\\"\\\" TERM; echo $$; while :; do sleep 0.01; done' & while :; do sleep 0.01; done",
    Port = nobody_ct:start("{ok, _} = application:ensure_all_started(causeway), "
                 "{ok, H} = causeway_process_stream:open(\"sh\", [\"-c\", \"" ++ Script ++ "\"]), "
                 "(fun Print() -> receive {H, {data, Data}} -> io:put_chars([\"@\", Data]), Print() end end)()."),
    {os_pid, Node} = erlang:port_info(Port, os_pid),
    Numbers = two_numbers(Port, <<>>),
    ?assert(lists:all(fun process_ct:is_alive/1, Numbers)),
    "0" = os:cmd("kill -9 " ++ integer_to_list(Node) ++ "; printf $?"),
    ok = process_ct:gone(Numbers),
    receive {Port, {exit_status, _}} -> ok end.

two_numbers(Port, Text) ->
    case [binary_to_integer(Line) || Line <- binary:split(binary:replace(Text, <<"@">>, <<>>, [global]), <<"\n">>, [global, trim_all])] of
        [_, _] = Numbers -> Numbers;
        _ -> receive {Port, {data, Data}} -> two_numbers(Port, <<Text/binary, Data/binary>>) after 30000 -> error({no_numbers, Text}) end
    end.
