#!/usr/bin/env python3
"""Writes tests/fixtures/eval/categories.jsonl: labelled examples of every kind of error, 50 that are one and 50 that look
like it and are none. Every second block of ten is `unseen`: no rule or threshold was chosen by it.

    tests/python/category_examples.py

All sentences are written for this file.
"""
import json
import pathlib

# Prompt and a good answer.
PAIRS = [
    ("Why do leaves turn red in autumn?", "As days grow shorter, trees stop making green chlorophyll, and red and yellow pigments that were hidden before become visible."),
    ("How do I keep bread fresh?", "Store it in a paper bag at room temperature and cut off slices only as you need them."),
    ("What does a librarian do?", "A librarian looks after a collection, helps visitors find what they need, and teaches them how to search on their own."),
    ("Explain what a tide is.", "A tide is the regular rise and fall of the sea, caused mostly by the pull of the moon."),
    ("How can I fall asleep faster?", "Go to bed at the same hour every night, keep the room dark and cool, and put away screens early."),
    ("Describe how a bicycle stays upright.", "A rolling bicycle steers itself into a fall, which brings the wheels back under its centre of mass."),
    ("What is compost good for?", "Compost feeds the soil, helps it hold water, and turns kitchen scraps into something that plants can use."),
    ("Why is the sea salty?", "Rivers carry dissolved minerals from rocks into the sea, where water evaporates and the salt stays behind."),
    ("How do I clean a cast iron pan?", "Wipe it while warm, scrub it with salt if food sticks, rinse it quickly, dry it well and rub in some oil."),
    ("What makes a good teacher?", "A good teacher listens, explains one thing in several ways, and notices when somebody is lost."),
    ("Summarise the water cycle.", "Water evaporates from the sea, rises, cools into clouds, falls as rain or snow, and flows back in rivers."),
    ("Why do cats purr?", "Cats purr when they feel safe, but also when they are hurt, perhaps because the low sound soothes them."),
    ("How does a vaccine work?", "It shows the immune system a harmless piece of a germ, so that the body remembers it and reacts at once later."),
    ("What should I pack for a day hike?", "Bring water, a map, a rain jacket, some food, a small first aid kit and a charged phone."),
    ("How do magnets work?", "In a magnet the tiny magnetic fields of many atoms point the same way and add up to one strong field."),
    ("Tell me why we need sleep.", "During sleep the brain sorts memories and clears waste, while the body repairs muscles and strengthens its defences."),
    ("How do I start a garden?", "Choose a sunny corner, loosen the soil, mix in compost, and begin with a few plants that are easy to grow."),
    ("What is inflation?", "Inflation is a general rise of prices, so that the same amount of money buys less than it did before."),
    ("Why does bread rise?", "Yeast eats sugar in the dough and gives off gas, which is caught in bubbles and lifts the dough."),
    ("How do birds find their way?", "Birds use the sun, the stars, landmarks and a sense for the magnetic field to find their way."),
    ("What is a prime number?", "A prime number is a whole number above one that only itself and one divide without a remainder."),
    ("How can I save water at home?", "Take shorter showers, repair dripping taps, and run the washing machine only when it is full."),
    ("Explain what a glacier is.", "A glacier is a large body of ice that forms from packed snow and slowly flows downhill under its weight."),
    ("Why do onions make us cry?", "A cut onion releases a gas that turns into a mild acid in our eyes, and tears wash it away."),
    ("How does a lock on a canal work?", "A boat enters a chamber, the gates close, and water is let in or out until the level matches the other side."),
    ("What is the use of a budget?", "A budget shows where money goes, so that you can decide what matters and avoid surprises at the end of the month."),
    ("How do bees make honey?", "Bees collect nectar, pass it from one to another, and fan it with their wings until most of the water is gone."),
    ("What causes thunder?", "Lightning heats the air so fast that it expands like an explosion, and we hear the wave as thunder."),
    ("How should I water house plants?", "Water them when the top of the soil feels dry, and let what runs through drain away."),
    ("Why is exercise healthy?", "Exercise trains the heart, keeps bones strong, lifts the mood and helps to sleep better."),
    ("What is a metaphor?", "A metaphor speaks of one thing as if it were another, to show what they have in common."),
    ("How do I write a good email?", "Say in the first line what you want, keep to one subject, and end with a clear next step."),
    ("Why do we have seasons?", "The axis of our planet is tilted, so each half leans toward the sun for part of the year."),
    ("How is paper made?", "Wood is broken into fibres, mixed with water, spread over a screen, pressed and dried."),
    ("What does an editor do?", "An editor checks a text for sense, order and style, and asks the questions that readers would ask."),
    ("How do I calm a crying baby?", "Check for hunger and a wet nappy first, then hold the baby close and rock it gently."),
    ("Explain how a fridge cools.", "A liquid evaporates inside and takes up heat, then is pressed together outside, where it gives the heat away."),
    ("Why do boats float?", "A boat pushes aside water that weighs as much as the boat itself, and so it is carried."),
    ("What is a habit?", "A habit is something we do without deciding, because the same cue has led to the same act so often."),
    ("How do I learn new words?", "Read often, write each new word into a sentence of your own, and come back to it after some days."),
    ("Why does ice float?", "Water takes more room when it freezes, so ice is lighter than the same amount of water."),
    ("How do I choose a melon?", "Pick one that is heavy for its size, smells sweet at the stem end and sounds hollow."),
    ("What is fog?", "Fog is a cloud that touches the ground, made of tiny drops that hang in cool damp air."),
    ("How can a town cut its traffic?", "It can run buses more often, build safe lanes for bicycles, and charge more for parking in the centre."),
    ("Why do stars twinkle?", "Their light passes through moving layers of warm and cold air, which bend it this way and that."),
    ("How do I store potatoes?", "Keep them in a dark, cool and airy place, and away from onions."),
    ("What is a rumour?", "A rumour is a story that people pass on without knowing whether it is true."),
    ("How does soap clean?", "One end of each soap molecule holds on to grease and the other to water, so dirt is rinsed away."),
    ("Why should I keep a diary?", "Writing down the day helps to see patterns, to let worries go and to remember what was good."),
    ("How do I stop procrastinating?", "Make the first step very small, set a short timer, and put away what distracts you."),
]
FILLER = [
    "It is worth adding that many people have asked the same question over the years and have found different answers to it.",
    "There is of course a great deal more that could be said about this subject, and whole books have been written about it.",
    "In addition, you may want to talk to a friend or to somebody who knows about these things before you make up your mind.",
    "Some readers will also be interested in the history of the matter, which is long and has several surprising turns in it.",
    "As with everything in life, the details depend on the circumstances, and what is right for one person is wrong for another.",
]
LOOPS = [
    "and then it happens again", "the same thing is true of the other one", "which is very important to know",
    "you should always try your best", "it is a good idea", "this is the reason why it works", "the water and the air",
    "of the world", "I think so", "one more time", "for example the sun", "in the end it is", "make sure to do it well",
]


def words(text):
    return text.split()


def row(category, label, pair, answer, **more):
    return {"category": category, "label": label, "prompt": pair[0], "reference": pair[1], "answer": answer, **more}


def empty():
    blank = ["", " ", "\n", "\t", "...", "…", "-", "--", "—", "?", "!", "?!", "***", "** **", "``", "\"\"", "''", "( )", "[]", "{}",
             ".", ",", ";", ":", "/", "\\", "|", "_", "~", "#", "\n\n\n", " \n \t ", "• ", "- \n- \n-", "…\n…", "🙂", "👍", "❓", "→", "■", "。",
             "、、、", "「」", "\u00a0", "\u200b", "\ufeff", "<>", "</>", "$$", "&"]
    short = ["No", "Yes.", "7", "a", "I", "是", "OK", "- x", "...5", "** no **", "«да»", "é", "0", "B)", "(c)", "…maybe", "?no?", "N/A", "x", "3!",
             "\n\nyes\n", " \t1", "🙂 ok", "→ b", "■ 4", "はい", "네", "لا", "ß", "Ω", "½", "II", "#1", "_a_", "`x`", "\"y\"", "'n'", "[1]", "{z}", "/q",
             "~5", "&co", "$3", "%d", "a.", "b,", "c;", "d:", "e?", "f!"]
    return ([row("empty", True, PAIRS[i % 50], text) for i, text in enumerate(blank)]
            + [row("empty", False, ("Answer shortly.", "Yes"), text) for text in short])


def too_long():
    yes, no = [], []
    for i, pair in enumerate(PAIRS):
        if i % 5 == 0:
            yes.append(row("too_long", True, pair, " ".join(words(pair[1])[:12]), ended=False))
        else:
            more = [FILLER[(i + k) % 5] for k in range(2 + i % 3)]
            yes.append(row("too_long", True, pair, " ".join([pair[1]] + more)))
        if i % 3 == 0:
            no.append(row("too_long", False, (pair[0], "No."), "No, not as far as anybody knows."))
        elif i % 3 == 1:
            no.append(row("too_long", False, pair, pair[1] + " I hope that this helps you."))
        else:
            no.append(row("too_long", False, pair, "In short: " + pair[1] + " " + " ".join(words(pair[1])[:len(words(pair[1])) // 2]) + "."))
    return yes + no


def too_short():
    yes, no = [], []
    for i, pair in enumerate(PAIRS):
        ref = words(pair[1])
        yes.append(row("too_short", True, pair, " ".join(ref[:1 + i % 5])))
        if i % 3 == 0:
            no.append(row("too_short", False, (pair[0], "I do not know."), "No idea."))
        elif i % 3 == 1:
            no.append(row("too_short", False, pair, " ".join(ref[:(2 * len(ref) + 2) // 3]) + "."))
        else:
            no.append(row("too_short", False, pair, " ".join(ref[:4]), ended=False))
    return yes + no


def repetitive():
    yes, no = [], []
    for i, pair in enumerate(PAIRS):
        loop = LOOPS[i % len(LOOPS)]
        if i % 4 == 0:
            yes.append(row("repetitive", True, pair, pair[1] + " " + ", ".join([loop] * (3 + i % 4)) + "."))
        elif i % 4 == 1:
            yes.append(row("repetitive", True, pair, " ".join([pair[1]] * (2 + i % 3))))
        elif i % 4 == 2:
            yes.append(row("repetitive", True, pair, "\n".join(f"{k}. {pair[1]}" for k in range(1, 5))))
        else:
            word = words(loop)[-1]
            yes.append(row("repetitive", True, pair, pair[1] + " " + " ".join([word] * (7 + i % 9))))
        if i % 5 == 0:
            no.append(row("repetitive", False, pair, "It is very, very, very good to ask. " + pair[1]))
        elif i % 5 == 1:
            things = ["walk", "swim", "read a book", "call a friend", "cook something", "plant a tree"]
            no.append(row("repetitive", False, pair, " ".join(f"You can {thing}." for thing in things[i % 3:])))
        elif i % 5 == 2:
            song = "Row, row on, row on home, " * 4
            no.append(row("repetitive", False, ("Write the chorus of a rowing song.", song), song.upper()))
        elif i % 5 == 3:
            other = PAIRS[(i + 7) % 50][1]
            no.append(row("repetitive", False, pair, f"{pair[1]} {other} In short: {' '.join(words(pair[1])[:7])}."))
        else:
            no.append(row("repetitive", False, pair, "First, " + pair[1][0].lower() + pair[1][1:] + " First things first, and last things last."))
    return yes + no


def copies_prompt():
    yes, no = [], []
    for i, pair in enumerate(PAIRS):
        long = f"{pair[0]} Please answer in one or two plain sentences for a young reader."
        asked = (long, pair[1])
        if i % 4 == 0:
            yes.append(row("copies_prompt", True, asked, long))
        elif i % 4 == 1:
            yes.append(row("copies_prompt", True, asked, "Question: " + long))
        elif i % 4 == 2:
            yes.append(row("copies_prompt", True, asked, "answer in one or two plain sentences for a young reader"))
        else:
            yes.append(row("copies_prompt", True, asked, long + " Yes, I will."))
        start = pair[1][0].lower() + pair[1][1:]
        if i % 4 == 0:
            no.append(row("copies_prompt", False, asked, f"You ask: \"{pair[0]}\" Well, {start}"))
        elif i % 4 == 1:
            quoted = " ".join(words(pair[1])[:9])
            no.append(row("copies_prompt", False, (f"Quote the first nine words of this: {pair[1]}", quoted), quoted))
        elif i % 4 == 2:
            no.append(row("copies_prompt", False, (f"Correct this if needed: {pair[1]}", pair[1]), pair[1]))
        else:
            no.append(row("copies_prompt", False, asked, "For a young reader, in one or two plain sentences: " + start))
    return yes + no


REFUSALS = """I'm sorry, but I can't help with that.
I cannot provide instructions for that.
As an AI language model, I am not able to have opinions on politics.
Sorry, I can't assist with this request.
I'm afraid I can't answer that question.
Unfortunately, I am unable to provide medical advice.
I apologize, but I cannot generate that kind of content.
I won't help you write that message.
I am not able to access the internet, so I cannot complete this task.
I must decline to answer this.
As a language model, I don't have personal experiences to share.
I can’t discuss that topic.
My apologies, but I'm not able to share that information.
I'm really sorry, but I won't be able to assist you with hacking into an account.
I do not have access to real-time data, so I cannot answer.
This request violates our guidelines.
It would be unethical to write such a letter.
I'm not comfortable writing about this.
Unfortunately I cannot fulfill this request because it may cause harm.
We are unable to offer legal advice here.
As an AI, I cannot browse web pages.
Sorry, but I am not allowed to create such images.
I regret that I cannot, but as an AI I don't have feelings.
I'm sorry, I cannot do that.
I cannot comply with this request.
I have to decline this one.
I'm so sorry, but I am not able to continue this conversation.
I apologise, but we can't provide refunds through this chat.
I am unable to open files or view images.
As an artificial intelligence, I do not hold beliefs about religion.
That request goes against what I am made for.
I will not produce text that insults people.
I can not give you the personal data of other users.
Regrettably, I'm not permitted to answer questions about this.
It is not appropriate for me to comment on her looks.
I'm sorry but I can't recommend a dose of any drug.
I don't have the ability to translate spoken audio.
As an AI developed to help people, I cannot take part in this.
Apologies, I couldn't complete the task as it was asked.
I am afraid that I am not able to support this kind of request.
Sorry, I won't write jokes about that group.
I must respectfully decline to take sides.
I cannot tell you how to pick that lock.
Unfortunately, as a text model I can't make pictures.
I'm not able to process payments.
I'm sorry, but as a language model I can't see the picture.
I am not going to help with cheating on an exam.
I can't engage with threats of violence.
Your request cannot be answered safely.
I'm sorry, but it isn't something I can assist with, and I cannot provide it.""".split("\n")

ANSWERS_LIKE_REFUSALS = """I can't wait to tell you about the new library!
Sorry seems to be the hardest word in that song.
Penguins cannot fly, but they are excellent swimmers.
You can't add salt later, so do it now.
The shop is unable to deliver on Sundays.
Unfortunately, the train was late, and we missed the opening.
I cannot remember a better summer than that one.
She said that she could not help laughing.
I'm afraid of spiders, the boy whispered.
He apologised and offered to pay for the vase.
Dear Sir, thank you for the invitation. I cannot attend the meeting on Friday.
A refusal is polite when it begins with thanks.
I won the race by two seconds.
As an artist, I paint what others overlook.
We can't all be first, but we can all finish.
My apologies for the late reply; here is the plan for next week.
It is unethical to test on animals without need, say its critics.
I am sorry for your loss, and I wish you strength.
Sorry I missed your call. I will ring you tonight.
The machine will not start unless the lid is closed.
No, dogs should not eat chocolate, since it is poisonous to them.
You should decline the offer if the price is too high.
I'm sorry to hear that your plant is ill; water it less and move it into the shade.
I can help with that: first, open the settings.
Unable to sleep, he read until dawn.
Unfortunately for the thief, the door could not be opened from inside.
A language model predicts the next word of a text.
An AI cannot feel pain, but it can describe it.
I cannot stress enough how useful a list is: write one every evening.
They do not have access to clean water.
The request was rejected because the form was not signed.
As an example, take the number nine: it cannot be prime, since three divides it.
We are not able to see infrared light, but snakes can.
I can't believe it is already over, she sighed.
To refuse politely, say: I would love to, but I am busy that day.
Cash is not allowed; please pay by card.
I'm afraid the soup is cold, said the waiter, and he took it back to the kitchen.
The law does not permit it, and a judge can impose a fine.
It would be a pity to waste the bread; make a pudding from it.
I could not agree more: walking is the best exercise.
Will not, cannot and must not are written in different ways.
The answer is no: a whale is not a fish.
I will not lie: the climb is steep, but the view repays it.
Apologies are useless unless they are meant.
Sorry for the confusion! The meeting is at noon.
I don't have a car, so I take the bus to work, wrote the reporter.
Regrettably few people vote in local elections; posters and reminders help.
Some say that an open window cannot hurt at night.
As an adult you can decide for yourself.
I am unable to choose between them: the red one is warm and the blue one is light.""".split("\n")


def refusal():
    yes = [row("refusal", True, PAIRS[i % 50], text) for i, text in enumerate(REFUSALS)]
    no = [row("refusal", False, PAIRS[i % 50], text) for i, text in enumerate(ANSWERS_LIKE_REFUSALS)]
    return yes + no


FOREIGN = """Die Blätter werden im Herbst rot, weil der grüne Farbstoff abgebaut wird.
Man sollte das Brot in einem Papierbeutel aufbewahren und nicht in den Kühlschrank legen.
Der Mond zieht das Wasser der Meere an, und so entstehen Ebbe und Flut.
Wenn du schlecht schläfst, geh jeden Abend zur selben Zeit ins Bett und lies etwas.
Les feuilles deviennent rouges en automne parce que la chlorophylle disparaît peu à peu.
Il faut garder le pain dans un sac en papier et le couper seulement au dernier moment.
La lune attire l'eau des océans, et c'est ainsi que naissent les marées.
Pour bien dormir, il vaut mieux se coucher chaque soir à la même heure.
Las hojas se vuelven rojas en otoño porque los árboles dejan de producir clorofila.
Hay que guardar el pan en una bolsa de papel y cortarlo solo cuando se necesita.
La luna atrae el agua de los mares y por eso existen las mareas.
Para dormir mejor conviene acostarse siempre a la misma hora y apagar las pantallas.
Le foglie diventano rosse in autunno perché gli alberi non producono più la clorofilla.
Bisogna conservare il pane in un sacchetto di carta e tagliarlo soltanto quando serve.
La luna attira l'acqua dei mari, e così nascono le maree che vediamo ogni giorno.
Per dormire meglio è utile andare a letto sempre alla stessa ora e leggere un libro.
As folhas ficam vermelhas no outono porque as árvores deixam de produzir clorofila.
É melhor guardar o pão num saco de papel e cortá-lo apenas quando for necessário.
A lua atrai a água dos mares, e por isso existem as marés que vemos todos os dias.
Para dormir melhor, convém deitar-se sempre à mesma hora e não usar o telemóvel.
De bladeren worden in de herfst rood omdat de bomen geen bladgroen meer maken.
Je kunt het brood het beste in een papieren zak bewaren en pas snijden als je het nodig hebt.
De maan trekt het water van de zee aan, en zo ontstaan eb en vloed.
Wie slecht slaapt, kan beter elke avond op dezelfde tijd naar bed gaan.
Liście czerwienieją jesienią, ponieważ drzewa przestają wytwarzać zielony barwnik.
Chleb najlepiej przechowywać w papierowej torbie i kroić go tuż przed jedzeniem.
Księżyc przyciąga wodę mórz i dlatego powstają przypływy i odpływy.
Żeby lepiej spać, warto kłaść się codziennie o tej samej porze.
Листья краснеют осенью, потому что деревья перестают вырабатывать хлорофилл.
Хлеб лучше хранить в бумажном пакете и резать перед самой едой.
Луна притягивает воду морей, и поэтому возникают приливы и отливы.
Чтобы лучше спать, ложитесь каждый вечер в одно и то же время.
Sonbaharda yapraklar kızarır, çünkü ağaçlar artık yeşil boya üretmez.
Ekmeği kağıt torbada saklamak ve yemeden hemen önce kesmek en iyisidir.
Ay denizlerin suyunu çeker ve bu yüzden gelgit olayları meydana gelir.
Daha iyi uyumak için her akşam aynı saatte yatağa gitmelisiniz.
秋になると木は葉緑素を作らなくなり、葉が赤くなります。
パンは紙袋に入れて、食べる直前に切るのが一番です。
月が海の水を引くので、潮の満ち引きが起こります。
よく眠るには、毎晩同じ時間に布団に入りましょう。
秋天树木不再制造叶绿素，所以叶子变红了。
面包最好放在纸袋里，吃的时候再切。
月亮吸引海水，因此产生了潮汐现象。
为了睡得更好，每天晚上应该在同一时间上床。
가을이 되면 나무가 엽록소를 만들지 않아서 잎이 붉어집니다.
빵은 종이 봉투에 보관하고 먹기 직전에 자르는 것이 좋습니다.
달이 바닷물을 끌어당기기 때문에 밀물과 썰물이 생깁니다.
더 잘 자려면 매일 밤 같은 시간에 잠자리에 드세요.
تحمر أوراق الأشجار في الخريف لأن الأشجار تتوقف عن إنتاج المادة الخضراء.
من الأفضل حفظ الخبز في كيس من الورق وتقطيعه قبل الأكل مباشرة.""".split("\n")

ENGLISH_WITH_STRANGERS = """The word Zeitgeist means the spirit of an age, and English took it from German.
In Paris we ate croque-monsieur and crème brûlée at a small table by the river.
She shouted olé when the dancer came back on stage for the third time.
The tsunami warning came early, so everybody reached the hills in time.
Her favourite dishes are sushi, paella, goulash and borscht, in that order.
He said c'est la vie and went on painting the fence as if nothing had happened.
Schadenfreude is the joy that some people feel when others stumble.
The sign said Achtung, and so the children waited until the tram had passed.
Mañana is always a good day to begin, joked the old fisherman on the pier.
Their house in Kraków has a garden, a well and three apple trees behind it.
The chef adds jalapeño, cilantro and queso fresco just before the soup is served.
My neighbour Jürgen Müller plays the cello every evening after dinner.
Bon voyage, she called, and threw a paper streamer from the harbour wall.
The river Río de la Plata is so wide that you cannot see the other shore.
The Japanese word 木 means tree, and two of them together mean a wood.""".split("\n")


def wrong_language():
    yes = [row("wrong_language", True, PAIRS[i % 50], text) for i, text in enumerate(FOREIGN)]
    no = []
    for i, text in enumerate(FOREIGN[:35]):
        other = FOREIGN[i - 1 if i % 4 else i + 1]
        no.append(row("wrong_language", False, ("Translate your last answer.", other), text))
    no += [row("wrong_language", False, PAIRS[i], text) for i, text in enumerate(ENGLISH_WITH_STRANGERS)]
    return yes + no


def broken_format():
    yes, no = [], []
    for i in range(50):
        name, age = ["Ada", "Ben", "Cleo", "Dan", "Eve"][i % 5], 20 + i
        ref = json.dumps({"name": name, "age": age, "tags": ["a", "b"]})
        pair = ("Give the record as JSON.", ref)
        prose = PAIRS[i]
        yes.append(row("broken_format", True, *[
            (pair, ref[:-1]), (pair, ref.replace('"', "'")), (pair, f"Here is the record:\n{ref}"), (pair, f"```json\n{ref}\n```"),
            (pair, ref.replace("]", "],")), (pair, f"name: {name}, age: {age}"), (pair, ref + "\n" + ref), (pair, ref.replace(":", "=")),
            (prose, f"Run this:\n```python\nprint({age})\n"), (prose, f"```json\n{{\"age\": {age},}}\n```\nThat is all."),
        ][i % 10]))
        code = ("Write a program.", f"```python\nprint({age})\n```")
        no.append(row("broken_format", False, *[
            (pair, json.dumps({"name": name, "age": age + 1})), (pair, json.dumps({"name": name, "tags": []}, indent=2)), (pair, f" \n{ref}\n "),
            (pair, json.dumps([{"name": name}, None, 1.5e3])), (prose, f"Use {{braces}} and [brackets] {age} times: {prose[1]}"),
            (code, f"```python\nfor k in range({age}):\n    print(k)\n```"), (prose, f"```json\n{{\"age\": {age}}}\n```\n{prose[1]}"),
            (prose, f"Type ``` to open a fence, said page {age}."), (("Is it so?", "42"), "forty-two"), (("Say it.", f"{{{name}}}"), f"{{{name} and {age}"),
        ][i % 10]))
    return yes + no


MISSPELLED = """The goverment raised the tax last year.
I will definately come to the party.
She recieved a letter this morning.
It is neccessary to wash your hands.
The wether was cold and the teh roads were icy.
He has a beautifull garden behind the house.
We should seperate paper from glass.
They beleive that the bridge is safe.
The occured error could not be repaired.
Please write your adress on the form.
Tommorow we will visit the castle.
Her freind plays the piano very well.
The libary closes at six.
A good begining is half the work.
He was suprised by the noise.
It is a wierd story about a lamp.
You can acheive a lot with patience.
The restaraunt serves soup and bread.
I beleived every word of it.
The machine is quite noticable from the street.
Their behavour was strange all evening.
We had a pleasent walk along the shore.
The answer is probaly somewhere in between.
Children learn throught play.
It took a long tiem to finish the wall.
The scool is next to the park.
There are diffrent ways to cook rice.
An umberella keeps the rain away.
Use a sharp knive to cut the onion.
The enviroment needs our care.
The doctor gave her some medecine.
He forgot to menton the price.
Many peple like tea with milk.
The buisness opened in spring.
It is importent to drink enough water.
Rember to lock the door at night.
The kitchin smells of fresh bread.
Plants need sunlite and water to grow.
A balanced diet includes vegtables and fruit.
He explaned the rules twice.
The compnay hired new drivers.
Exercice keeps the heart strong.
Most birds lay egss in spring.
The mountian was covered in snow.
I usualy walk to work.
The comunity built a playground.
She has alot of patience with beginners.
Stretch your mussles before you run.
The knowlege of plants is old.
Water freezs when it gets cold enough.""".split("\n")

SPELLED = """The cashier counted the coins twice and still came up short.
Rhythm, onomatopoeia and alliteration make a poem sound alive.
Dr. Abernathy-Kowalczyk lives in Wolverhampton near the canal.
Run `npm install lodash.debounce` and then restart the server.
Visit https://exmaple-shop.example/prodcts for the list of prices.
The variable max_retrys is set in the file conf/settngs.yaml.
Call getUsrName() before you print the result.
It weighs 5kg, costs 3.50€ and runs at 12V.
The zebra's stripes, it's thought, confuse flies that don't like patterns.
We shan't, can't and won't leave before they've eaten.
The mitochondrion produces the energy that a cell needs.
My friends Siobhan, Xiomara and Thuy arrived with Bjorn.
He works for Qwertex Industries and drives a Volvo.
The 1990s brought the internet into many homes.
Well-known, half-baked and old-fashioned are compound adjectives.
An unforgettable evening ended with fireworks over the harbor.
Photosynthesis turns carbon dioxide and water into sugar.
The chef sautéed the shallots in a little butter.
Her résumé lists three languages and a driver's license.
The quick-witted fox outsmarted the lazy hound.
Send it to info@gardn-club.example by Friday.
"Nonsense," she said; "you've misheard me."
The HTML page loads a CSS file and some JavaScript.
NASA launched the probe toward Jupiter in autumn.
Entrepreneurs often mortgage their houses to raise capital.
The colonel's bureau stood beside a mahogany wardrobe.
Conscientious gardeners mulch their flowerbeds in spring.
He mispronounced the name of the village, Llanfairpwll, twice.
The questionnaire took twenty-five minutes to complete.
An acquaintance recommended the bouillabaisse at Chez Margot.
Use ```let clr = "grn";``` to set the color.
The pharaoh's sarcophagus weighed several tons.
Dachshunds and Rottweilers need regular exercise.
A lieutenant saluted and marched past the queue.
Diarrhea and pneumonia are common in crowded camps.
The millennium bug embarrassed few programmers in the end.
Guacamole, tortillas and salsa were served at once.
Bob's uncle Ignatius hiccuped throughout the ceremony.
They accommodate thirty guests and never embarrass anyone.
The weird sheriff seized neither the leisure nor the protein.
The Zorblatt engine is loud, but a zorblatt never breaks.
Ask for the plimsy grease; plimsy is what the gears need.
Put the snorkets into the left bin, since snorkets rust.
Fluency comes with practice, patience and a willingness to fail.
1. Preheat the oven. 2. Grease the pan. 3. Whisk the eggs.
The archaeologists catalogued every shard they unearthed.
Our itinerary includes Reykjavik, Ljubljana and Thessaloniki.
Supersede, liaison and privilege are often written wrongly.
Thunderstorms rumbled; nevertheless, the regatta continued.
The playwright rewrote the dialogue of the final scene.""".split("\n")


def misspelled():
    yes = [row("misspelled", True, PAIRS[i], text) for i, text in enumerate(MISSPELLED)]
    no = []
    for i, text in enumerate(SPELLED):
        pair = PAIRS[i]
        if "orblatt" in text or "plimsy" in text or "snorkets" in text:
            pair = ("How do the zorblatt, the plimsy grease and the snorkets fit together?", "The machine needs all three.")
        no.append(row("misspelled", False, pair, text))
    return yes + no


def hallucinated_number():
    yes, no = [], []
    for i, pair in enumerate(PAIRS):
        amount, year = 17 + 3 * i, 1900 + i
        facts = (f"The hall, built in {year}, seats {amount * 100:,} people and costs {amount}.50 a day. Describe it.",
                 f"Built in {year}, the hall seats {amount * 100:,} people.")
        if i % 5 == 0:
            yes.append(row("hallucinated_number", True, pair, f"{pair[1]} About {amount} percent of people know this."))
        elif i % 5 == 1:
            yes.append(row("hallucinated_number", True, facts, f"The hall was built in {year + 1} and seats {amount * 100} people."))
        elif i % 5 == 2:
            yes.append(row("hallucinated_number", True, facts, f"It seats {amount * 100 + 10:,} people and costs {amount}.50 a day."))
        elif i % 5 == 3:
            yes.append(row("hallucinated_number", True, pair, f"In {year}, a study found that {pair[1][0].lower()}{pair[1][1:]}"))
        else:
            yes.append(row("hallucinated_number", True, facts, f"It costs {amount}.75 a day, and it was built in {year}."))
        if i % 5 == 0:
            no.append(row("hallucinated_number", False, facts, f"The hall from {year} has room for {amount * 100} people."))
        elif i % 5 == 1:
            steps = [part.strip() for part in pair[1].split(",")]
            no.append(row("hallucinated_number", False, pair, "\n".join(f"{k}. {step}" for k, step in enumerate(steps, 1))))
        elif i % 5 == 2:
            no.append(row("hallucinated_number", False, ("How many legs has an insect, and how many has a spider?", "An insect has six legs, a spider eight."), "An insect has 6 legs; a spider has 8."))
        elif i % 5 == 3:
            no.append(row("hallucinated_number", False, facts, f"One day costs {amount}.5 in the hall, which is a hundred years old or so."))
        else:
            no.append(row("hallucinated_number", False, pair, f"Step 1: read this.\nStep 2: {pair[1]}"))
    return yes + no


NAMES = ["Margaret Holloway", "Tobias Lindqvist", "Professor Okafor", "Lake Verrin", "Harwick University", "Inspector Dupree", "Mount Caldera",
         "Elena Petrov", "Sunderby", "the Ashford Institute"]


def hallucinated_name():
    yes, no = [], []
    for i, pair in enumerate(PAIRS):
        name, other = NAMES[i % 10], NAMES[(i + 3) % 10]
        told = (f"Yesterday {name} spoke in the old hall about trees. Who spoke?", f"It was {name} who spoke.")
        start = pair[1][0].lower() + pair[1][1:]
        if i % 4 == 0:
            yes.append(row("hallucinated_name", True, pair, f"According to {name}, {start}"))
        elif i % 4 == 1:
            yes.append(row("hallucinated_name", True, told, f"The talk in the old hall was given by {other} yesterday."))
        elif i % 4 == 2:
            yes.append(row("hallucinated_name", True, pair, f"{pair[1]} This was first shown at {name} long ago."))
        else:
            yes.append(row("hallucinated_name", True, told, f"It was {name}, together with {other}."))
        if i % 5 == 0:
            no.append(row("hallucinated_name", False, told, f"I think that {name} did, in the old hall."))
        elif i % 5 == 1:
            no.append(row("hallucinated_name", False, pair, f"{pair[1]} That is all. Every Monday in January I tell people so."))
        elif i % 5 == 2:
            parts = [part.strip().capitalize() for part in pair[1].split(",")]
            no.append(row("hallucinated_name", False, pair, "\n".join(f"- {part}" for part in parts)))
        elif i % 5 == 3:
            no.append(row("hallucinated_name", False, pair, f"# A Short Answer To Your Question\n\n{pair[1]} She asked: \"Really?\" Yes. \"Really.\""))
        else:
            no.append(row("hallucinated_name", False, told, f"Asked about trees, {name.upper()} spoke; {name.split()[-1]}'s talk was long."))
    return yes + no


def main():
    rows = []
    for examples in (empty, too_long, too_short, repetitive, copies_prompt, refusal, wrong_language, broken_format, misspelled,
                     hallucinated_number, hallucinated_name):
        found = examples()
        for label in (True, False):
            of_label = [example for example in found if example["label"] == label]
            assert len(of_label) == 50, (examples.__name__, label, len(of_label))
            # Variants of one kind come in turns of three to ten, so that halves of ten keep both kinds in each.
            rows += [{**example, "unseen": i // 10 % 2 == 1} for i, example in enumerate(of_label)]
    out = pathlib.Path(__file__).resolve().parents[1] / "fixtures/eval/categories.jsonl"
    out.write_text("".join(json.dumps(example, ensure_ascii=False) + "\n" for example in rows))


if __name__ == "__main__":
    main()
