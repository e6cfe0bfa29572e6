{#
    Conditions on a JSON column, each by the path of its value (`plan`, `app.version`). upnext/conditions.py checks
    them.

        plan: premium                            equal, as text, number or boolean
        rows: {at_least: 100, less_than: 200}    also at_most, more_than, between; numbers, also written as text
        plan: {one_of: [basic, premium]}         also not, none_of: these hold for a value that is missing, too
        url: {contains: /pricing}                also starts_with, ends_with, matches; `ignore_case: true`
        ends_at: {before: in 3 days}             also after; an instant, or one relative to `instant`
        coupon: {exists: true}                   null does not exist; `is_null: true` is a value that is given as null
        any: [{plan: basic}, {seats: 1}]         one of these holds; `all` and `not` as well
#}
{% macro all_hold(column, conditions, instant=none) -%}
    {%- for path, test in conditions.items() -%}
        {%- if path in ('any', 'all') -%}
            (
            {%- for one in test -%}
                ({{ all_hold(column, one, instant) }}){{ (' or ' if path == 'any' else ' and ') if not loop.last }}
            {%- endfor -%}
            )
        {%- elif path == 'not' -%}
            not coalesce(({{ all_hold(column, test, instant) }}), false)
        {%- else -%}
            {{ passes(path_of(column, path), test if test is mapping else {'equals': test}, instant) }}
        {%- endif -%}
        {{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{# Whether a JSON value passes each test. #}
{% macro passes(value, test, instant) -%}
    {%- set bounds = {'at_least': '>=', 'at_most': '<=', 'more_than': '>', 'less_than': '<'} -%}
    {%- set tests = dict(test) -%}
    {%- set ignore_case = tests.pop('ignore_case', false) -%}
    {%- set text -%} {{ 'lower' if ignore_case }}({{ value }} #>> '{}') {%- endset -%}
    {%- for name, expected in tests.items() -%}
        {%- set cased = (expected | lower) if ignore_case and expected is string else expected -%}
        {%- if name in bounds -%}
            upnext.number({{ value }}) {{ bounds[name] }} {{ expected }}
        {%- elif name == 'between' -%}
            upnext.number({{ value }}) between {{ expected[0] }} and {{ expected[1] }}
        {%- elif name == 'equals' -%}
            {{ is_one_of(value, text, [expected], ignore_case) }}
        {%- elif name == 'not' -%}
            not coalesce({{ is_one_of(value, text, [expected], ignore_case) }}, false)
        {%- elif name == 'one_of' -%}
            {{ is_one_of(value, text, expected, ignore_case) }}
        {%- elif name == 'none_of' -%}
            not coalesce({{ is_one_of(value, text, expected, ignore_case) }}, false)
        {%- elif name == 'contains' -%}
            strpos({{ text }}, {{ quoted([cased]) }}) > 0
        {%- elif name == 'starts_with' -%}
            starts_with({{ text }}, {{ quoted([cased]) }})
        {%- elif name == 'ends_with' -%}
            right({{ text }}, {{ cased | length }}) = {{ quoted([cased]) }}
        {%- elif name == 'matches' -%}
            {#- A long value is matched by its beginning: the time of a match grows with the length of the text. -#}
            left({{ value }} #>> '{}', 1000) {{ '~*' if ignore_case else '~' }} {{ quoted([expected]) }}
        {%- elif name in ('before', 'after') -%}
            upnext.instant({{ value }}) {{ '<' if name == 'before' else '>' }} {{ moment(expected, instant) }}
        {%- elif name == 'exists' -%}
            ({{ value }} #>> '{}') is {{ 'not null' if expected else 'null' }}
        {%- elif name == 'is_null' -%}
            coalesce(jsonb_typeof({{ value }}) = 'null', false) = {{ expected | string | lower }}
        {%- endif -%}
        {{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{# Equal as text, number or boolean, by the type that is expected. #}
{% macro is_one_of(value, text, expected, ignore_case) -%}
    {%- set texts = [] -%}
    {%- set numbers = [] -%}
    {%- for one in expected -%}
        {%- if one is boolean -%} {%- do texts.append(one | string | lower) -%}
        {%- elif one is number -%} {%- do numbers.append(one) -%}
        {%- else -%} {%- do texts.append((one | lower) if ignore_case else one) -%}
        {%- endif -%}
    {%- endfor -%}
    (
    {%- if texts -%} {{ text }} in ({{ quoted(texts) }}) {%- endif -%}
    {{ ' or ' if texts and numbers }}
    {%- if numbers -%} upnext.number({{ value }}) in ({{ numbers | join(', ') }}) {%- endif -%}
    )
{%- endmacro %}

{#
    The tests of an event's properties and context that compare with the time of the tick, with the column, the path and
    the `turn`: how long after the tested instant the test turns out otherwise.
#}
{% macro relative_tests(meta) -%}
    {%- set found = [] -%}
    {%- for column, conditions in {'properties': meta.where, 'context': meta.context}.items() if conditions -%}
        {%- do find_relative_tests(column, conditions, found) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}

{% macro find_relative_tests(column, conditions, found) -%}
    {%- for path, test in conditions.items() -%}
        {%- if path in ('any', 'all') -%}
            {%- for one in test -%} {%- do find_relative_tests(column, one, found) -%} {%- endfor -%}
        {%- elif path == 'not' -%}
            {%- do find_relative_tests(column, test, found) -%}
        {%- elif test is mapping -%}
            {%- for name in ('before', 'after') if test[name] and (' ago' in test[name] or 'in ' in test[name]) -%}
                {%- set turn -%}
                    {%- if ' ago' in test[name] %} + {{ interval_of(test[name][:-4]) }}
                    {%- else %} - {{ interval_of(test[name][3:]) }}
                    {%- endif -%}
                    {#- At the instant itself, neither `before` nor `after` holds. -#}
                    {%- if name == 'before' %} + interval '1 microsecond' {%- endif -%}
                {%- endset -%}
                {%- do found.append({'column': column, 'path': path, 'turn': turn}) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}

{# An instant that is stated, or a length of time before (`7 days ago`) or after (`in 3 days`) another. #}
{% macro moment(stated, instant) -%}
    {%- if stated.endswith(' ago') -%} {{ instant }} - {{ interval_of(stated[:-4]) }}
    {%- elif stated.startswith('in ') -%} {{ instant }} + {{ interval_of(stated[3:]) }}
    {%- else -%} upnext.instant(to_jsonb({{ quoted([stated]) }}::text))
    {%- endif -%}
{%- endmacro %}
