%% @doc What the documents show is run: both READMEs, the guides and the architecture. The examples are patterns and
%% assertions, so that what they show is true when they run to their end.
%%
%% Blocks between fences are examples; what is below one heading belongs together: the blocks of Erlang share their
%% variables and a process, those of another language are one program. A block whose first line is a comment with the
%% name of a file, as `# shop.py', is that file; Python and the node find it. A block of Erlang that begins with
%% `-module(' is compiled. Blocks that are indented are commands that other suites run.
-module(documentation_SUITE).

-export([suite/0, all/0, init_per_suite/1, end_per_suite/1]).
-export([all_languages_are_run/1, links_lead_somewhere/1, guides_are_listed/1, sources_are_there/1,
         rooms_are_named/1, targets_of_make_are_there/1, erlang/1, elixir/1, python/1, shell/1, files_are_used/1]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-record(block, {document, line, section, language, text}).

%% The files are written when the suite begins.
-define(LANGUAGES, [<<"elixir">>, <<"erlang">>, <<"python">>, <<"sh">>]).
-define(PATIENCE, 30000).

suite() -> [{timetrap, {minutes, 4}}].

all() ->
    [all_languages_are_run, links_lead_somewhere, guides_are_listed, sources_are_there, rooms_are_named,
     targets_of_make_are_there,
     erlang, elixir, python, shell, files_are_used].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(causeway),
    Documents = [{Document, read(Document)} || Document <- documents()],
    Blocks = with_free_ports(lists:append([blocks(Document, Text) || {Document, Text} <- Documents])),
    {Files, Programs} = lists:partition(fun(Block) -> file_name(Block) =/= none end, Blocks),
    {ok, Before} = file:get_cwd(),
    ok = make_directory(Config),
    ok = file:set_cwd(directory(Config)),
    [ok = file:write_file(filename:join(directory(Config), file_name(File)), File#block.text) || File <- Files],
    {ok, _} = py:eval("__import__('sys').path.insert(0, directory)",
                      #{directory => causeway_python:bytes(directory(Config))}),
    [{documents, Documents}, {files, Files}, {programs, Programs}, {before, Before} | Config].

end_per_suite(Config) ->
    {ok, _} = py:eval("__import__('sys').path.remove(directory)",
                      #{directory => causeway_python:bytes(directory(Config))}),
    ok = file:set_cwd(?config(before, Config)),
    causeway_ct:stop(Config).

%% The ports that they name may be somebody else's here, as of this suite with another Python.
with_free_ports(Blocks) ->
    Sockets = [{Port, element(2, {ok, _} = gen_tcp:listen(0, []))} || Port <- [<<"8081">>, <<"8082">>]],
    Free = [{Port, integer_to_binary(element(2, {ok, _} = inet:port(Socket)))} || {Port, Socket} <- Sockets],
    [ok = gen_tcp:close(Socket) || {_, Socket} <- Sockets],
    [lists:foldl(fun({Port, Other}, #block{text = Text} = Changed) ->
                         Changed#block{text = binary:replace(Text, Port, Other, [global])}
                 end, Block, Free) || Block <- Blocks].

documents() ->
    ["README.md", "CHANGELOG.md", "Sources/README.md", "python/README.md" |
     lists:sort(filelib:wildcard("erlang/guides/*.md", root()))].

%% --- the documents themselves ---

%% A block in a language that nobody runs would be an example that nobody knows to be true.
all_languages_are_run(Config) ->
    Others = [where(Block) || Block <- ?config(programs, Config) ++ ?config(files, Config),
                              not lists:member(Block#block.language, ?LANGUAGES)],
    ?assertEqual([], Others).

links_lead_somewhere(Config) ->
    Broken = [{Document, Link} || {Document, Text} <- ?config(documents, Config),
                                  Link <- matches(Text, "\\]\\(([^)]+)\\)"),
                                  not leads_somewhere(Document, string:split(Link, "#"))],
    ?assertEqual([], Broken).

%% Where people look for them: in the README and in the overview of EDoc.
guides_are_listed(Config) ->
    Guides = [Document || {"erlang/guides/" ++ _ = Document, _} <- ?config(documents, Config)],
    Missing = [{List, Guide} || List <- ["README.md", "erlang/guides/overview.edoc"], Guide <- Guides,
                                string:find(read(List), Guide) =:= nomatch],
    ?assertEqual([], Missing).

%% The files of Swift, Erlang and Python that the architecture names.
sources_are_there(_Config) ->
    Names = lists:usort(matches(read("Sources/README.md"), "`(?:[\\w/]+/)?(\\w+\\.(?:swift|erl|pyi?))`")),
    ?assertNotEqual([], Names),
    Missing = [Name || Name <- Names,
                       lists:all(fun(Directory) ->
                                         filelib:wildcard(Directory ++ "/" ++ binary_to_list(Name), root()) =:= []
                                 end, ["Sources/*", "Sources/*/*", "erlang/src", "python", "python/erlang", "Tests/Benchmarks"])],
    ?assertEqual([], Missing).

%% And the folders that there are.
rooms_are_named(_Config) ->
    Architecture = read("Sources/README.md"),
    Rooms = [filename:basename(Room) || Pattern <- ["Sources/*", "Sources/Causeway/*", "CShims/NifLoader"],
                                        Room <- filelib:wildcard(Pattern, root()),
                                        filelib:is_dir(filename:join(root(), Room))],
    ?assert(length(Rooms) > 10),
    ?assertEqual([], [Room || Room <- Rooms, matches(Architecture, ["`((?:[\\w/]+/)?", Room, ")/?`"]) =:= []]).

leads_somewhere(_Document, [<<"https:", _/binary>> | _]) ->
    true;
leads_somewhere(Document, [<<>>, Anchor]) ->
    lists:member(Anchor, anchors(Document));
leads_somewhere(Document, [Path]) ->
    filelib:is_file(filename:join(root(), target(Document, Path)));
leads_somewhere(Document, [Path, Anchor]) ->
    leads_somewhere(Document, [Path]) andalso lists:member(Anchor, anchors(target(Document, Path))).

%% Relative to the project's root.
target(Document, Path) ->
    Steps = filename:split(filename:join(filename:dirname(Document), binary_to_list(Path))),
    case lists:foldl(fun("..", [_ | Above]) -> Above;
                        (".", Above) -> Above;
                        (Step, Above) -> [Step | Above]
                     end, [], Steps) of
        [] -> ".";
        Reversed -> filename:join(lists:reverse(Reversed))
    end.

%% The names that headings have as targets of links.
anchors(Document) ->
    [unicode:characters_to_binary(
       string:replace(re:replace(string:lowercase(Heading), "[^\\w\\s-]", "", [unicode, ucp, global, {return, list}]),
                      " ", "-", all))
     || Heading <- matches(read(Document), "^#+ (.*)$")].

targets_of_make_are_there(Config) ->
    Makefile = read("Makefile"),
    Missing = [{Document, Target} || {Document, Text} <- ?config(documents, Config),
                                     Target <- matches(Text, "(?:^    |`)make ([a-z-]+)"),
                                     matches(Makefile, ["^(", Target, "):.*##"]) =:= []],
    ?assertEqual([], Missing).

%% --- the examples ---

erlang(Config) ->
    [evaluate(Section) || Section <- sections(Config, <<"erlang">>)].

elixir(Config) ->
    case os:find_executable("elixir") of
        false -> {skip, "elixir is not installed"};
        Elixir -> run_elixir(Elixir, Config, sections(Config, <<"elixir">>))
    end.

%% A node for all of them: to start one takes longer than most examples.
run_elixir(Elixir, Config, Sections) ->
    Scripts = [script(Config, "exs", Section) || Section <- Sections],
    Run = "for file <- System.argv(), do: Task.async(fn -> Code.eval_file(file) end) |> Task.await(30_000)",
    run(Config, Elixir, ["-pa", filename:dirname(code:which(py)), "-e", Run, "--" | Scripts]).

python(Config) ->
    [run(Config, python(), [script(Config, "py", Section)]) || Section <- sections(Config, <<"python">>)].

shell(Config) ->
    [run(Config, os:find_executable("sh"), ["-eu", script(Config, "sh", Section)])
     || Section <- sections(Config, <<"sh">>)].

%% Each is used by an example of its document; a module of Python that only Elixir's node has imported is imported here.
files_are_used(Config) ->
    Unused = [where(File) || File <- ?config(files, Config), not is_used(File, ?config(programs, Config))],
    ?assertEqual([], Unused),
    [{ok, _} = py:call(importlib, import_module, [list_to_atom(filename:rootname(file_name(File)))])
     || #block{language = <<"python">>} = File <- ?config(files, Config)].

is_used(File, Programs) ->
    Name = filename:rootname(file_name(File)),
    lists:any(fun(#block{document = Document, text = Text}) ->
                      Document =:= File#block.document andalso string:find(Text, Name) =/= nomatch
              end, Programs).

%% --- running ---

%% In a process of its own, whose names and mailbox are nobody else's.
evaluate(Section) ->
    {Pid, Monitor} = spawn_monitor(fun() -> lists:foldl(fun evaluate/2, erl_eval:new_bindings(), Section) end),
    receive
        {'DOWN', Monitor, process, Pid, normal} -> ok;
        {'DOWN', Monitor, process, Pid, Reason} -> ct:fail(Reason)
    after ?PATIENCE ->
        exit(Pid, kill),
        ct:fail({takes_too_long, where(hd(Section))})
    end.

evaluate(#block{text = <<"-module(", _/binary>>} = Block, Bindings) ->
    Forms = [begin {ok, Form} = erl_parse:parse_form(Tokens), Form end || Tokens <- scan(Block)],
    {ok, Module, Code} = compile:forms(Forms, [report, warnings_as_errors]),
    {module, Module} = code:load_binary(Module, "", Code),
    Bindings;
evaluate(Block, Bindings) ->
    lists:foldl(fun(Tokens, Before) -> evaluate(Block, Tokens, Before) end, Bindings, scan(Block)).

%% As in a shell: one expression after the other, with the variables of the ones before.
evaluate(Block, Tokens, Before) ->
    Line = erl_scan:line(hd(Tokens)),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    try erl_eval:exprs(Expressions, Before) of
        {value, _, After} -> After
    catch
        Class:Reason:Stack -> exit({Block#block.document, Line, Class, Reason, Stack})
    end.

scan(#block{line = Line, text = Text}) ->
    scan(unicode:characters_to_list(Text), Line).

scan(Text, Line) ->
    case erl_scan:tokens([], Text, Line) of
        {done, {ok, Tokens, Next}, Rest} -> [Tokens | scan(Rest, Next)];
        {done, {eof, _}, _} -> [];
        {more, _} -> []
    end.

%% With the lines that it has in its document, for what says where it fails.
script(Config, Extension, [First | _] = Section) ->
    Name = lists:concat([filename:basename(First#block.document), "-", First#block.line, ".", Extension]),
    File = filename:join(?config(priv_dir, Config), Name),
    ok = file:write_file(File, [Block#block.text || Block <- Section]),
    File.

%% They run where the files are, with the Python of the node, and print nothing.
run(Config, Program, Arguments) ->
    Path = filename:dirname(python()) ++ ":" ++ os:getenv("PATH"),
    Environment = [{"PATH", Path}, {"PYTHONPATH", filename:join(root(), "python") ++ ":" ++ directory(Config)},
                   {"CAUSEWAY", filename:dirname(filename:dirname(code:which(py)))}, {"CHECKOUT", root()}],
    Port = open_port({spawn_executable, Program}, [{args, Arguments}, {env, Environment}, {cd, directory(Config)},
                                                   exit_status, stderr_to_stdout, binary]),
    ?assertEqual({Arguments, 0, <<>>}, collect(Port, Arguments, <<>>)).

collect(Port, Arguments, Output) ->
    receive
        {Port, {data, Data}} -> collect(Port, Arguments, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Arguments, Status, Output}
    end.

python() ->
    {ok, #{executable := Python}} = causeway_python:find(),
    unicode:characters_to_list(Python).

%% --- what is in a document ---

%% The blocks of a language, those of a section together.
sections(Config, Language) ->
    Blocks = [Block || Block <- ?config(programs, Config), Block#block.language =:= Language],
    ?assertNotEqual([], Blocks),
    Sections = lists:foldl(fun(#block{section = Section} = Block, [[#block{section = Section} | _] = Last | Others]) ->
                                   [[Block | Last] | Others];
                              (Block, Others) ->
                                   [[Block] | Others]
                           end, [], Blocks),
    lists:reverse([lists:reverse(Section) || Section <- Sections]).

blocks(Document, Text) ->
    Lines = lists:enumerate(binary:split(Text, <<"\n">>, [global])),
    blocks(Lines, #block{document = Document, section = {Document, 0}}, []).

blocks([], _Block, Found) ->
    lists:reverse(Found);
blocks([{Line, <<"#", _/binary>>} | Rest], Block, Found) ->
    blocks(Rest, Block#block{section = {Block#block.document, Line}}, Found);
blocks([{Line, <<"```", Language/binary>>} | Rest], Block, Found) ->
    {Inside, [_Fence | After]} = lists:splitwith(fun({_, Inner}) -> Inner =/= <<"```">> end, Rest),
    Text = << <<Inner/binary, "\n">> || {_, Inner} <- Inside >>,
    blocks(After, Block, [Block#block{line = Line + 1, language = Language, text = Text} | Found]);
blocks([_ | Rest], Block, Found) ->
    blocks(Rest, Block, Found).

file_name(#block{text = Text}) ->
    case re:run(Text, "^(?:#|%+) (\\w+\\.\\w+)\n", [{capture, [1], list}]) of
        {match, [Name]} -> Name;
        nomatch -> none
    end.

where(#block{document = Document, line = Line, language = Language}) ->
    {Document, Line, Language}.

matches(Text, Pattern) ->
    case re:run(Text, Pattern, [multiline, global, {capture, [1], binary}]) of
        {match, Matches} -> lists:append(Matches);
        nomatch -> []
    end.

directory(Config) ->
    filename:join(?config(priv_dir, Config), "files").

%% With a virtual environment, which only its packages make slow: how one is made is tested elsewhere.
make_directory(Config) ->
    ok = filelib:ensure_path(directory(Config)),
    run(Config, python(), ["-m", "venv", "--without-pip", "guide-venv"]).

read(Document) ->
    {ok, Text} = file:read_file(filename:join(root(), Document)),
    Text.

%% The project's root, from where this suite lies in its sources.
root() ->
    find_root(filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile)))).

find_root(Directory) ->
    case filelib:is_regular(filename:join(Directory, "README.md")) andalso filelib:is_dir(filename:join(Directory, "CShims")) of
        true -> Directory;
        false -> find_root(filename:dirname(Directory))
    end.
