//! Chat templates by name, for models whose own is missing or not wanted. Each is a Jinja text like a user's, and is
//! stored with the adapter as one.
//!
//! They write what the families' own published templates write for system, user and assistant messages. The markers are
//! single tokens only in a vocabulary that has them; in another they are trained as the text they are.

/// Names and texts.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("chatml", CHATML),
    ("llama-2", LLAMA_2),
    ("llama-3", LLAMA_3),
    ("mistral", MISTRAL),
    ("gemma", GEMMA),
    ("phi", PHI),
    ("plain", PLAIN),
];

/// The text of a template by its name.
pub fn template_by_name(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}

/// With tools, which are written as the models do that learned ChatML with them: each a line of JSON in `<tools>`, each
/// call as JSON in `<tool_call>`.
const CHATML: &str = "{% if tools %}<|im_start|>system\nFunctions that can be called, each with a JSON Schema of its \
    arguments:\n<tools>\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}</tools>\nA call is written as a JSON \
    object:\n<tool_call>\n{\"name\": <name>, \"arguments\": <object>}\n</tool_call><|im_end|>\n{% endif %}\
    {% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}\
    {% for call in message['tool_calls'] %}{% if message['content'] or not loop.first %}{{ '\n' }}{% endif %}\
    <tool_call>\n{\"name\": {{ call.function.name | tojson }}, \"arguments\": {{ call.function.arguments | tojson }}}\n\
    </tool_call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const LLAMA_2: &str = "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token }}[INST] \
    {% if loop.index0 == 1 and messages[0]['role'] == 'system' %}<<SYS>>\n{{ messages[0]['content'] }}\n<</SYS>>\n\n\
    {% endif %}{{ message['content'] | trim }} [/INST]{% elif message['role'] == 'assistant' %} \
    {{ message['content'] | trim }} {{ eos_token }}{% elif message['role'] != 'system' or loop.index0 > 0 %}\
    {{ raise_exception('llama-2 has room for one system message at the start, and for users and assistants') }}\
    {% endif %}{% endfor %}";

const LLAMA_3: &str = "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}\
    <|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
    <|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] \
    {% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n{% endif %}\
    {{ message['content'] }} [/INST]{% elif message['role'] == 'assistant' %} {{ message['content'] }}{{ eos_token }}\
    {% elif message['role'] != 'system' or loop.index0 > 0 %}\
    {{ raise_exception('mistral has room for one system message at the start, and for users and assistants') }}\
    {% endif %}{% endfor %}";

const GEMMA: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
    <start_of_turn>user\n{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n\
    {% endif %}{{ message['content'] | trim }}<end_of_turn>\n{% elif message['role'] == 'assistant' %}\
    <start_of_turn>model\n{{ message['content'] | trim }}<end_of_turn>\n\
    {% elif message['role'] != 'system' or loop.index0 > 0 %}\
    {{ raise_exception('gemma has room for one system message at the start, and for users and assistants') }}\
    {% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";

const PHI: &str = "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

const PLAIN: &str = "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}\
    {{ eos_token }}{% else %}{{ '\\n\\n' }}{% endif %}{% endfor %}";
