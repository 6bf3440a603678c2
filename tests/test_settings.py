"""Where options come from, which source wins, and what is said about what is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.options import BY_NAME, OPTIONS, SECTIONS, Option, configuration_file, listing
from collectord.settings import LEFT_OUT, ConfigurationError, load

REPOSITORY = Path(__file__).parent.parent
LIST = "DEFAULT.uve_proxy_list"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file and gives its path."""

    def write(content: str | bytes, name: str = "a.conf") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def all_errors(argv: list[str], environ: dict[str, str] | None = None) -> tuple[str, ...]:
    try:
        load(argv, environ or {})
    except ConfigurationError as refused:
        return refused.errors
    return ()


def error(argv: list[str], environ: dict[str, str] | None = None) -> str:
    (only,) = all_errors(argv, environ)
    return only


class TestTable:
    def test_every_default_is_a_value_of_its_option(self) -> None:
        settings = load([], {})
        for option in OPTIONS:
            assert settings.setting(option.name).origin == "default"

    def test_every_option_stands_once_and_says_what_it_does(self) -> None:
        assert len(BY_NAME) == len(OPTIONS)
        assert all(option.help for option in OPTIONS)

    def test_the_default_proxy_list_is_that_of_contrail(self) -> None:
        assert load([], {}).text(LIST) == (
            "UveVirtualNetworkAgent-egress_flow_count:AggProxySumAnomalyEWM01:AggProxySum "
            "UveVirtualNetworkAgent-ingress_flow_count:AggProxySumAnomalyEWM01:AggProxySum"
        )


class TestListing:
    def test_the_listing_begins_as_contrails_does(self) -> None:
        assert listing().startswith(
            "Allowed options:\n"
            "\n"
            "Generic options:\n"
            "  --conf_file arg (=Configuration file)\n"
            "  --help                                help message\n"
            "  --version                             Display version information\n"
        )
        assert "\n\nConfiguration options:\n  --" in listing()

    def test_help_begins_in_its_column_or_on_the_next_line(self) -> None:
        assert "  --COLLECTOR.port arg (=8086)          Port to listen on" in listing()
        assert f"  --{LIST} arg (={BY_NAME[LIST].default})\n{' ' * 40}UVE Proxy List\n" in listing()

    def test_every_option_is_listed_with_its_default(self) -> None:
        lines = listing().splitlines()
        for option in OPTIONS:
            shown = f"  --{option.name} arg" + (f" (={option.default})" if option.default else "")
            assert any(line == shown or line.startswith(f"{shown} ") for line in lines)

    def test_help_stays_within_eighty_columns(self) -> None:
        assert all(len(line) < 80 for line in listing().splitlines() if LIST not in line)


class TestConfigurationFile:
    def test_the_one_in_conf_is_made_from_the_table(self) -> None:
        shipped = (REPOSITORY / "conf" / "contrail-collector.conf").read_text()
        printed = subprocess.run(
            [sys.executable, "-m", "collectord.options"],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
        ).stdout
        assert shipped == printed

    def test_it_changes_nothing(self, write: Write) -> None:
        assert load(["--conf_file", write(configuration_file())], {}) == load([], {})

    def test_it_reads_back_as_the_defaults_where_its_comments_are_taken_away(
        self, write: Write
    ) -> None:
        path = write(
            "\n".join(
                line[1:] if line[:1] == "#" and line[:2] not in ("# ", "#") else line
                for line in configuration_file().splitlines()
            )
        )
        settings = load(["--conf_file", path], {})
        assert settings.changed(load([], {})) == ()
        assert all(path in settings.setting(option.name).origin for option in OPTIONS)

    def test_the_settled_options_read_back_as_the_same_values(self, write: Write) -> None:
        settings = load(
            ["--COLLECTOR.message_size", "3 KiB", "--DEFAULT.log_file=/a %(b)s=c:d;e#f"],
            {"COLLECTORD_DEFAULT_UVE_PROXY_LATENESS": "0.000001", "COLLECTORD_QUERY_SERVER": "::1"},
        )
        again = load(["--conf_file", write(settings.configuration_file())], {})
        assert settings.changed(again) == ()

    @given(st.floats(0, 300, allow_subnormal=False).map(lambda lateness: f"{lateness:.9f}"))
    def test_every_lateness_reads_back_as_itself(self, lateness: str) -> None:
        name = "DEFAULT.uve_proxy_lateness"
        settled = load([f"--{name}={lateness}"], {}).setting(name)
        assert load([f"--{name}={settled}"], {}).setting(name) == settled

    def test_the_settled_options_say_where_they_came_from(self, write: Write) -> None:
        path = write("[DEFAULT]\n\npartitions = 7\n")
        shown = load(
            ["--conf_file", path, "--QUERY.port", "1"], {"COLLECTORD_STREAM_PORT": "2"}
        ).configuration_file()
        assert f"# {path}:3\npartitions=7\n" in shown
        assert "# command line\nport=1\n" in shown
        assert "# environment variable COLLECTORD_STREAM_PORT\nport=2\n" in shown
        assert "# default\nport=8086\n" in shown


class TestPrecedence:
    def test_the_command_line_wins_over_all(self, write: Write) -> None:
        argv = ["--conf_file", write("[QUERY]\nport=2\n"), "--QUERY.port", "4"]
        assert load(argv, {"COLLECTORD_QUERY_PORT": "3"}).integer("QUERY.port") == 4

    def test_the_environment_wins_over_the_file(self, write: Write) -> None:
        argv = ["--conf_file", write("[QUERY]\nport=2\n")]
        assert load(argv, {"COLLECTORD_QUERY_PORT": "3"}).integer("QUERY.port") == 3

    def test_a_later_file_wins_over_an_earlier_option_by_option(self, write: Write) -> None:
        first = write("[QUERY]\nport=2\n[STREAM]\nport=3\n", "first.conf")
        second = write("[QUERY]\nport=4\n", "second.conf")
        settings = load(["--conf_file", first, f"--conf_file={second}"], {})
        assert settings.integer("QUERY.port") == 4
        assert settings.integer("STREAM.port") == 3
        assert f"# {second}:2\nport=4" in settings.configuration_file()

    @pytest.mark.parametrize("source", ["file", "environment", "command line"])
    def test_an_empty_value_is_a_value(self, source: str, write: Write) -> None:
        argv = ["--conf_file", write("[DEFAULT]\nuve_proxy_list=A-b:AggProxySum\n")]
        environ = {}
        if source == "file":
            argv += ["--conf_file", write("[DEFAULT]\nuve_proxy_list=\n", "empty.conf")]
        elif source == "environment":
            environ["COLLECTORD_DEFAULT_UVE_PROXY_LIST"] = ""
        else:
            argv += [f"--{LIST}="]
        assert load(argv, environ).text(LIST) == ""

    def test_the_last_one_on_the_command_line_counts(self) -> None:
        assert load(["--QUERY.port", "1", "--QUERY.port=2"], {}).integer("QUERY.port") == 2

    def test_every_option_is_taken_from_the_environment(self) -> None:
        for option in OPTIONS:
            settings = load([], {option.variable: option.default})
            assert option.variable in settings.setting(option.name).origin

    def test_other_variables_are_passed_over(self) -> None:
        load([], {"COLLECTORD_QUERY_SERVICE_HOST": "10.0.0.1", "COLLECTORD_PORT": "tcp://a:1"})

    def test_what_asks_for_help_version_or_a_check_settles_nothing(self) -> None:
        assert load(["--help", "--version", "--check_config"], {}) == load([], {})


class TestFile:
    def test_a_value_is_all_that_follows_the_first_equals_sign(self, write: Write) -> None:
        path = write("[DEFAULT]\nlog_file = /a=b:%(c)s;d#e%% \n")
        assert load(["--conf_file", path], {}).text("DEFAULT.log_file") == "/a=b:%(c)s;d#e%%"

    def test_comments_and_blank_lines_are_passed_over(self, write: Write) -> None:
        path = write("# [X]\n; y=1\n\n   # z\n[QUERY]\n  port = 1\n")
        assert load(["--conf_file", path], {}).integer("QUERY.port") == 1

    @pytest.mark.parametrize("content", [b"\xef\xbb\xbf[QUERY]\nport=1", b"[QUERY]\r\nport=1\r\n"])
    def test_windows_editors_are_forgiven(self, content: bytes, write: Write) -> None:
        assert load(["--conf_file", write(content)], {}).integer("QUERY.port") == 1

    def test_a_section_may_come_twice(self, write: Write) -> None:
        path = write("[QUERY]\nport=1\n[STREAM]\n[QUERY]\nserver=::1\n")
        settings = load(["--conf_file", path], {})
        assert settings.endpoint("QUERY") == "tcp://[::1]:1"

    def test_options_of_default_are_not_inherited(self, write: Write) -> None:
        path = write("[DEFAULT]\nhostip=::1\n[QUERY]\nhostip=::1\n")
        assert error(["--conf_file", path]) == (
            f"{path}:4: unknown option 'QUERY.hostip'; did you mean DEFAULT.hostip?"
        )

    @pytest.mark.parametrize(
        ("content", "line", "said"),
        [
            ("port=1\n", 1, "'port' stands before any section; did you mean COLLECTOR.port or"),
            ("[QUERY]\nprot=1\n", 2, "unknown option 'QUERY.prot'; did you mean QUERY.port?"),
            ("[DEFAULT]\nzzzz=1\n", 2, "unknown option 'DEFAULT.zzzz'; --help lists the options"),
            ("\n[default]\nx=1\n", 2, "unknown section '[default]'; the sections are [DEFAULT], "),
            ("[QUERY\nport=1\n", 1, "unknown section '[QUERY'; the sections are [DEFAULT], "),
            ("[QUERY]\nport: 1\n", 2, "'port: 1' is neither [SECTION] nor key=value"),
            ("[QUERY]\nport=1\nport=1\n", 3, "QUERY.port: is given again, first in line 2"),
            ("[QUERY]\nport=1 ; one\n", 2, "QUERY.port: '1 ; one' holds a comment; put it on a"),
            ("[DEFAULT]\nlog_file='x'\n", 2, "is in quotes; leave them out"),
            ("[DEFAULT]\nlog_file=a\x00b\n", 2, "'a\\x00b' has control characters"),
            (b"[DEFAULT]\nhostname=\xff\n", 2, "is not UTF-8; save the file in that encoding"),
        ],
    )
    def test_an_error_names_file_and_line(
        self, content: str | bytes, line: int, said: str, write: Write
    ) -> None:
        path = write(content)
        message = error(["--conf_file", path])
        assert message.startswith(f"{path}:{line}: ")
        assert said in message

    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        path = str(tmp_path / "none[1]*.conf")
        assert error(["--conf_file", path]).startswith(f"{path}: cannot be read: No such file")

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        assert "cannot be read: Is a directory" in error(["--conf_file", str(tmp_path)])

    @given(st.binary(max_size=200) | st.text("[]=#; \nDEFAULTport1", max_size=60).map(str.encode))
    def test_any_bytes_are_read_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any.conf"
        path.write_bytes(content)
        told = all_errors(["--conf_file", str(path)])
        assert all(message.startswith(str(path)) for message in told)
        assert all(message.isprintable() for message in told)


class TestCommandLine:
    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["--QUERY.prot", "1"], "unknown option '--QUERY.prot'; did you mean QUERY.port?"),
            (["--QUERY.por=1"], "unknown option '--QUERY.por'; did you mean QUERY.port?"),
            (["--help=1"], "unknown option '--help'; takes no value"),
            (["1"], "'1' belongs to no option; --help lists the options"),
            (["-h"], "'-h' belongs to no option; --help lists the options"),
            (["--QUERY.port"], "QUERY.port: the value is missing; write --QUERY.port=VALUE"),
            (["--QUERY.port", "--help"], "QUERY.port: the value is missing"),
            (["--conf_file"], "conf_file: the value is missing; write --conf_file=VALUE"),
            (["--QUERY.port", "-1"], "QUERY.port: '-1' is not a whole number from 0 to 65535"),
        ],
    )
    def test_an_error_says_what_would_be_right(self, argv: list[str], said: str) -> None:
        assert error(argv).startswith(f"command line: {said}")


class TestEnvironment:
    def test_a_malformed_value_names_its_variable(self) -> None:
        assert error([], {"COLLECTORD_QUERY_PORT": "tcp://a:1"}) == (
            "environment variable COLLECTORD_QUERY_PORT: QUERY.port: "
            "'tcp://a:1' is not a whole number from 0 to 65535"
        )

    def test_a_slip_of_the_pen_is_an_error(self) -> None:
        assert error([], {"COLLECTORD_DEFAULT_LOG_LEVLE": "SYS_INFO"}) == (
            "environment variable COLLECTORD_DEFAULT_LOG_LEVLE: "
            "no such option; did you mean COLLECTORD_DEFAULT_LOG_LEVEL?"
        )


class TestValues:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            *(("DEFAULT.use_syslog", text, True) for text in ("true", "yes", "1", "on", "TRUE")),
            *(("DEFAULT.log_local", text, False) for text in ("false", "no", "0", "off", "No")),
            ("COLLECTOR.message_size", "1024", 1024),
            ("COLLECTOR.message_size", "16MiB", 16 << 20),
            ("COLLECTOR.message_size", "2 KiB", 2048),
            ("DEFAULT.uve_proxy_lateness", "2.5", 2.5),
            ("DEFAULT.uve_proxy_list", " A-b:C \t\n D-e:F ", "A-b:C D-e:F"),
            ("COLLECTOR.server", "", ""),
            ("COLLECTOR.server", "0.0.0.0", "0.0.0.0"),
        ],
    )
    def test_good(self, name: str, text: str, value: object) -> None:
        settings = load([f"--{name}={text}"], {})
        assert settings.setting(name).value == value

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("DEFAULT.use_syslog", "maybe"),
            ("DEFAULT.use_syslog", ""),
            ("DEFAULT.hostip", ""),
            ("DEFAULT.hostip", "localhost"),
            ("DEFAULT.hostname", "a b"),
            ("DEFAULT.partitions", "0"),
            ("DEFAULT.partitions", "3.0"),
            ("DEFAULT.partitions", "\u0663"),
            ("DEFAULT.partitions", "9" * 5000),
            ("DEFAULT.log_level", "INFO"),
            ("DEFAULT.syslog_facility", "LOCAL0"),
            ("DEFAULT.uve_proxy_lateness", "-1"),
            ("DEFAULT.uve_proxy_lateness", "nan"),
            ("DEFAULT.log_file", "a\nb"),
            ("DEFAULT.log_file", "\udcff"),
            ("COLLECTOR.message_size", "16 MB"),
            ("COLLECTOR.message_size", "2 TiB"),
            ("COLLECTOR.port", "65536"),
        ],
    )
    def test_bad(self, name: str, text: str) -> None:
        assert error([f"--{name}={text}"]).startswith(f"command line: {name}: ")

    @given(st.sampled_from(OPTIONS), st.text(max_size=40))
    def test_any_text_is_a_value_or_refused(self, option: Option, text: str) -> None:
        assert all(message.isprintable() for message in all_errors([f"--{option.name}={text}"]))


class TestChecks:
    def test_a_check_of_another_room_is_told_as_any_error(self) -> None:
        def check(text: str) -> None:
            raise ValueError(f"{text!r} is not for us")

        with pytest.raises(ConfigurationError) as caught:
            load(["--DEFAULT.hostname=h"], {}, {"DEFAULT.hostname": check})
        assert caught.value.errors == ("command line: DEFAULT.hostname: 'h' is not for us",)

    def test_each_of_a_checks_sentences_is_an_error(self) -> None:
        class SeveralError(ValueError):
            errors = ("first", "second")

        def check(text: str) -> None:
            raise SeveralError

        with pytest.raises(ConfigurationError) as caught:
            load([f"--{LIST}=x"], {}, {LIST: check})
        assert [message.rpartition(" ")[2] for message in caught.value.errors] == [
            "first",
            "second",
        ]

    def test_everything_that_is_wrong_anywhere_is_told_at_once(self, write: Write) -> None:
        path = write("[QUERY]\nport=x\nserver=x\nfoo=1\n[NONE]\n[LIMITS]\nkeys=x\n")
        told = all_errors(
            ["--conf_file", path, "--conf_file", "/none", "--QUERY.port=y", "stray"],
            {"COLLECTORD_QUERY_PORT": "z"},
        )
        assert [message.split(": ")[0] for message in told] == [
            "command line",
            "command line",
            "environment variable COLLECTORD_QUERY_PORT",
            "/none",
            *(f"{path}:{line}" for line in (2, 3, 4, 5, 7)),
        ]


SECRET = "http://me:pass@a.test:9/hooks/T0ken?key=s3cret"


class TestSecrets:
    @pytest.mark.parametrize("name", ["ALARM.webhook", "ALARM.alertmanager"])
    def test_they_are_left_out_of_the_file_of_the_settings_which_says_so(self, name: str) -> None:
        settings = load([f"--{name}={SECRET} https://[::1]:8443/x http://plain.test"], {})
        key = name.partition(".")[2]
        shown = "http://a.test:9 https://[::1]:8443 http://plain.test"
        assert f"# command line{LEFT_OUT}\n{key}={shown}\n" in settings.configuration_file()
        assert settings.text(name).startswith(SECRET)

    def test_where_nothing_is_left_out_nothing_is_said(self) -> None:
        told = load(["--ALARM.webhook=http://a.test:9 http://b.test/"], {}).configuration_file()
        assert "# command line\nwebhook=http://a.test:9 http://b.test/\n" in told
        assert LEFT_OUT not in told

    @pytest.mark.parametrize(
        "arguments",
        [
            [f"--ALARM.webhook={SECRET} ; mine"],
            [f"--ALARM.webhook='{SECRET}'"],
            ["--ALARM.webhook", "http://b.test", SECRET],
            ["--ALARM.webhook", "http://b.test", f"ALARM.webhook={SECRET}"],
            [f"--{SECRET}"],
        ],
        ids=["comment", "quotes", "stray", "without dashes", "unknown"],
    )
    def test_errors_have_none(self, arguments: list[str]) -> None:
        told = error(arguments)
        assert "http://a.test:9" in told
        assert not [word for word in ("me:", "pass", "T0ken", "s3cret") if word in told]

    def test_an_error_of_a_line_that_goes_on_has_none(self, write: Write) -> None:
        lines = ["webhook=http://b.test", SECRET, "http://me:pa=ss@b.test", "http://me:p@c.test/x"]
        path = write("\n".join(["http://me:p@d.test/x=y", "[ALARM]", *lines]))
        assert [told.partition(";")[0] for told in all_errors(["--conf_file", path])] == [
            f"{path}:1: 'http://d.test' stands before any section",
            f"{path}:4: unknown option 'ALARM.http://a.test:9'",
            f"{path}:5: unknown option 'ALARM.http://b.test'",
            f"{path}:6: 'http://c.test' is neither [SECTION] nor key=value",
        ]


class TestSettings:
    def test_a_socket_listens_on_hostip_unless_its_section_says_otherwise(self) -> None:
        settings = load(["--DEFAULT.hostip=10.0.0.1", "--QUERY.server=0.0.0.0"], {})
        assert settings.endpoint("COLLECTOR") == "tcp://10.0.0.1:8086"
        assert settings.endpoint("QUERY") == "tcp://0.0.0.0:8087"

    def test_every_socket_is_local_by_default(self) -> None:
        for section in ("COLLECTOR", "QUERY", "STREAM"):
            assert load([], {}).endpoint(section).startswith("tcp://127.0.0.1:")

    def test_the_hostname_is_the_systems_where_none_is_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "here")
        assert load([], {}).text("DEFAULT.hostname") == "here"

    def test_a_getter_of_another_type_is_refused(self) -> None:
        settings = load([], {})
        for getter in (settings.integer, settings.seconds, settings.flag):
            with pytest.raises(TypeError):
                getter("DEFAULT.log_level")
        with pytest.raises(TypeError):
            settings.text("QUERY.port")

    def test_settings_cannot_be_changed(self) -> None:
        settings = load([], {})
        with pytest.raises(AttributeError):
            settings._settled = {}  # type: ignore[misc]
        with pytest.raises(TypeError):
            settings._settled["QUERY.port"] = None  # type: ignore[index]

    def test_reload_reads_the_files_again_with_the_same_command_line(self, write: Write) -> None:
        path = write("[DEFAULT]\nlog_level=SYS_INFO\n[QUERY]\nport=1\n")
        before = load(["--conf_file", path, "--QUERY.port=9"], {})
        write("[DEFAULT]\nlog_level=SYS_DEBUG\n[QUERY]\nport=2\n")
        after = before.reload()
        assert before.text("DEFAULT.log_level") == "SYS_INFO"
        assert after.text("DEFAULT.log_level") == "SYS_DEBUG"
        assert before.changed(after) == ("DEFAULT.log_level",)

    def test_reload_refuses_a_file_that_went_bad(self, write: Write) -> None:
        settings = load(["--conf_file", write("[QUERY]\nport=1\n")], {})
        write("[QUERY]\nport=x\n")
        with pytest.raises(ConfigurationError):
            settings.reload()
        assert settings.integer("QUERY.port") == 1

    def test_a_value_found_wrong_in_use_names_its_origin(self) -> None:
        settings = load(["--QUERY.port=1"], {})
        refused = settings.error("QUERY.port", "is not ours")
        assert refused.errors == ("command line: QUERY.port: is not ours",)

    def test_sections_are_those_of_the_collector(self) -> None:
        assert SECTIONS == (
            "DEFAULT",
            "COLLECTOR",
            "QUERY",
            "STREAM",
            "LIMITS",
            "ALARM",
            "SNAPSHOT",
            "SECURITY",
        )
