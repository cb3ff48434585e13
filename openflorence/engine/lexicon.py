"""English words by what they are, as captions use them: closed classes, common descriptions and verbs, odd forms.

A word that stands in no list is a noun, unless its ending says otherwise. What stands in several lists is settled by
its neighbours, in `parse.py`. No claim to be complete: what a caption names is nouns, and nouns need no list.
"""

_A = str.split

DETERMINERS = frozenset(_A("a an the this that these those each every some any no another both all either neither"))
POSSESSIVES = frozenset(_A("my your his her its our their whose"))
PRONOUNS = frozenset(
    _A("i me you he him she it we us they them who whom which what someone something anyone anything everyone")
    + _A(
        "everything nobody nothing one ones other others itself himself herself themselves mine yours hers theirs there"
    )
)
PREPOSITIONS = frozenset(
    _A("of on in at by with without to from near beside behind under underneath beneath over above below between among")
    + _A("against across along around through into onto inside outside toward towards off up down past beyond before")
    + _A("after during for about amid amidst atop upon next like throughout alongside within per via as than besides")
)
CONJUNCTIONS = frozenset(_A("and or but nor"))
SUBORDINATORS = frozenset(_A("while because when where although though if since until unless whereas"))
RELATIVES = frozenset(_A("that which who whose"))
MODALS = frozenset(_A("can could may might must shall should will would"))
BE = frozenset(_A("is are was were be been being am isn't aren't"))
HAVE_DO = frozenset(_A("has have had having does do did"))
NUMBERS = frozenset(
    _A("two three four five six seven eight nine ten eleven twelve dozen twenty thirty forty fifty hundred thousand")
    + _A("zero")
)
ADVERBS = frozenset(
    _A("very not also just together away here out back too together quite almost apart nearby outdoors indoors aside")
    + _A("overhead ahead forward upright else then now still only even perhaps partly so well")
)
# Say where in the picture; nouns, descriptions or neither, by what stands beside them.
PLACES = frozenset(_A("left right top bottom front middle center centre"))

ADJECTIVES = frozenset(
    _A("red green blue yellow purple orange white black gray grey brown pink beige golden silver tan teal maroon navy")
    + _A(
        "dark light bright pale small big large tiny huge medium little tall short long wide narrow thick thin old new"
    )
    + _A("young round square rectangular oval empty full open closed wet dry clean dirty hot cold warm cool soft hard")
    + _A("heavy fresh ripe raw wooden metallic plain shiny fluffy furry fuzzy hairy curly leafy grassy sandy rocky")
    + _A("snowy cloudy sunny rainy foggy windy misty dusty muddy rusty icy busy happy sad angry sleepy hungry pretty")
    + _A("lovely friendly beautiful nice good great fine best better modern ancient vintage rural urban residential")
    + _A("several many few multiple various different same other own main single double public private low high deep")
    + _A("flat steep sharp smooth rough calm quiet loud fast slow ready adult male female human wild domestic tropical")
    + _A("electric digital plastic-like clear blurry blond blonde bald asian african american european french chinese")
    + _A("japanese visible similar parallel vertical horizontal diagonal overcast sheer opaque transparent elderly")
    + _A(
        "decorative colorful colourful cute adorable fancy elegant tasty delicious healthy floral stone-built military"
    )
    + _A("historic historical natural typical central local foreign outdoor indoor upper lower inner outer rear")
)

# Base forms. Words that captions use as nouns at least as often (sign, park, fish, train) are left out; their -ing and
# -ed forms are told by the ending.
VERBS = frozenset(
    _A("stand sit lie lay hold wear ride walk run jump play look show eat drink fly lean hang carry smile sleep swim")
    + _A("surf ski skate drive move grow talk read write cook prepare serve chase catch throw hit kick swing pull push")
    + _A("climb wait work feed graze rest pose watch face cover contain include feature depict display appear seem")
    + _A("surround fill make take give use go come get put keep cut sell buy open close cross pass turn stop reach")
    + _A("touch lead follow ask say tell call see enjoy celebrate perform sing dance laugh cry fall rise shine sail")
    + _A("row paddle fight bark wag lick bite chew perch float land attach connect build paint draw print stack pile")
    + _A("consist illuminate reflect suggest indicate create add provide offer become begin start try want have")
)

# Any form -> what it is a form of.
IRREGULAR_VERBS = dict(
    pair.split(":")
    for pair in _A(
        "stood:stand sat:sit held:hold wore:wear worn:wear rode:ride ridden:ride ran:run ate:eat eaten:eat drank:drink "
        "flew:fly hung:hang slept:sleep swam:swim drove:drive driven:drive grew:grow grown:grow wrote:write "
        "written:write caught:catch threw:throw thrown:throw swung:swing fed:feed made:make took:take taken:take "
        "gave:give given:give went:go gone:go came:come got:get kept:keep sold:sell bought:buy led:lead said:say "
        "told:tell saw:see seen:see sang:sing sung:sing fell:fall fallen:fall rose:rise risen:rise shone:shine "
        "fought:fight bit:bite built:build drew:draw drawn:draw shown:show lain:lie laid:lay lying:lie lies:lie "
        "tied:tie torn:tear broken:break hidden:hide dressed:dress lit:light set:set became:become began:begin "
        "has:have having:have had:have"
    )
)
PARTICIPLES = frozenset(
    _A("worn ridden eaten grown written thrown taken given gone sold bought seen sung fallen risen built drawn shown")
    + _A("lain laid tied torn broken hidden dressed lit held hung made caught fed kept led set driven")
)

# End in -ing, -ed or -ly, and are nouns or descriptions all the same.
NOUNS = frozenset(
    _A("building painting drawing ceiling clothing wing ring king string thing morning evening railing awning lighting")
    + _A("wedding pudding earring bed shed sled seed weed family fly butterfly belly jelly lily spring icing siding")
    + _A("dressing stuffing frosting dwelling crossing parking bowling meeting landing sibling duckling sibling feed")
    + _A("greed reed steed clearing bedding flooring seating surroundings plaything sling paneling scaffolding writing")
)

IRREGULAR_NOUNS = dict(
    pair.split(":")
    for pair in _A(
        "men:man women:woman children:child people:person feet:foot teeth:tooth geese:goose mice:mouse sheep:sheep "
        "fish:fish deer:deer buses:bus leaves:leaf knives:knife shelves:shelf wolves:wolf loaves:loaf halves:half "
        "scarves:scarf lives:life wives:wife shoes:shoe toes:toe canoes:canoe oxen:ox cacti:cactus series:series "
        "species:species glasses:glasses scissors:scissors pants:pants jeans:jeans shorts:shorts clothes:clothes "
        "sunglasses:sunglasses tennis:tennis chess:chess canvas:canvas lens:lens gas:gas bus:bus"
    )
)

# Nouns that name no thing one could draw a box around, whatever describes them: "a plain gray background".
INTANGIBLE = frozenset(
    _A("image picture photo photograph view scene background foreground atmosphere mood time moment day night weather")
    + _A("style feeling sense activity action event scenery environment setting surroundings presence beauty")
    + _A("appearance variety combination arrangement composition perspective angle focus theme concept love joy peace")
    + _A("impression happiness fun idea life season summer winter autumn morning evening direction distance")
)
# Those that name none alone, but may with more: "a red top", "a row of houses".
PARTS = frozenset(
    _A("left right top bottom front back middle center centre side sides corner edge position area part row pair group")
    + _A("bunch couple lot lots number set line kind type sort way end color colour shade size shape pattern detail")
    + _A("details")
)
