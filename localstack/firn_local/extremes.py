"""Values at the edges of their types, for the table `extreme`: what other systems bend on the way."""

from __future__ import annotations

ROWS: tuple[dict[str, str], ...] = (
    {},
    {
        "flag": "true", "small": "-32768", "big": "9223372036854775807", "number": "NaN", "money_amount": "NaN",
        "real_value": "NaN", "double_value": "NaN", "day": "infinity", "clock": "24:00:00",
        "clock_zoned": "24:00:00-15:59:59", "moment": "infinity", "moment_zoned": "-infinity",
        "span": "178000000 years -178000000 months", "words": "", "fixed": "", "bytes": "", "bits": "",
        "tree": "null", "treeb": "null", "numbers": "{}", "grid": "{}", "ranges": "{}", "lexemes": "",
    },
    {
        "flag": "false", "small": "32767", "big": "-9223372036854775808", "number": "Infinity",
        "money_amount": "9999999999999999999999999999.9999999999", "real_value": "Infinity",
        "double_value": "-Infinity", "day": "-infinity", "clock": "00:00:00", "clock_zoned": "00:00:00+15:59:59",
        "moment": "-infinity", "moment_zoned": "infinity", "span": "-178000000 years",
        "words": "tab\tnewline\nquote\"'backslash\\ nul-free \u0001 \u2028 \U0001f9ca e\u0301", "fixed": " a  ",
        "bytes": "\\x00ff0a5c22", "bits": "10101", "tree": '{"a": 1,  "a": 2.50, "b": "\\u00e9"}',
        "treeb": '{"b": 1e400, "a": [true, null, "\\u001f"]}', "numbers": "[0:2]={1,NULL,3}",
        "grid": '{{"a,b","NULL"},{NULL,"{}"}}', "ranges": "{[1.5,2),[3,)}", "lexemes": "'fat':2A 'cat':3B,4",
    },
    {
        "number": "-Infinity", "money_amount": "-0.0000000001", "real_value": "-0", "double_value": "-0",
        "day": "4713-01-01 BC", "clock": "23:59:59.999999", "clock_zoned": "23:59:59.999999+00",
        "moment": "4713-01-01 00:00:00 BC", "moment_zoned": "4713-01-02 00:00:00+00 BC",
        "span": "1 mon -1 day +00:00:00.000001", "status": "with space", "cash": "-92233720368547758.08",
        "pointer": "FFFFFFFF/FFFFFFFF", "query": "18446744073709551615",
    },
    {
        "number": "1" + "0" * 200 + "." + "0" * 100 + "1", "money_amount": "0", "real_value": "1e-45",
        "double_value": "5e-324", "day": "5874897-12-31", "moment": "294246-12-31 23:59:59.999999",
        "moment_zoned": "294246-12-31 23:59:59.999999+00", "span": "0", "identifier": "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "network": "2001:db8::/32", "hardware": "08:00:2b:01:02:03", "place": "(1e-300,-Infinity)",
    },
    {
        "number": "0.00000000000000000000", "money_amount": "1.1", "real_value": "3.4028235e+38",
        "double_value": "1.7976931348623157e+308", "day": "0001-01-01", "clock": "00:00:00.000001",
        "moment": "0001-01-01 00:00:00", "moment_zoned": "0001-12-31 23:59:59.999999+00 BC",
        "identifier": "00000000-0000-0000-0000-000000000000", "network": "0.0.0.0/0", "numbers": "{2147483647,-2147483648}",
    },
    {
        "real_value": "123456.7", "double_value": "123456789012345.68", "number": "1e-16383", "day": "2000-02-29",
        "moment": "1969-12-31 23:59:59.999999", "moment_zoned": "1970-01-01 00:00:00.1+00", "words": "\\N",
    },
)


def statements(first_id: int) -> list[tuple[str, list[str]]]:
    """Inserts of every row of extremes, with ids from `first_id`."""
    made = []
    for number, row in enumerate(ROWS):
        names, values = ["id", *row], [str(first_id + number), *row.values()]
        made.append((f"INSERT INTO extreme ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})", values))
    return made
