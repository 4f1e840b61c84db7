"""Countries, their capitals and continents."""
from .common import Document, ask, loosely

EUROPE = """Albania Tirana; Andorra Andorra la Vella; Austria Vienna; Belarus Minsk; Belgium Brussels; Bulgaria Sofia; Croatia Zagreb;
Cyprus Nicosia; Denmark Copenhagen; Estonia Tallinn; Finland Helsinki; France Paris; Germany Berlin; Greece Athens; Hungary Budapest;
Iceland Reykjavik; Ireland Dublin; Italy Rome; Latvia Riga; Liechtenstein Vaduz; Lithuania Vilnius; Luxembourg Luxembourg; Malta Valletta;
Moldova Chisinau; Monaco Monaco; Montenegro Podgorica; Norway Oslo; Poland Warsaw; Portugal Lisbon; Romania Bucharest; Russia Moscow;
Serbia Belgrade; Slovakia Bratislava; Slovenia Ljubljana; Spain Madrid; Sweden Stockholm; Switzerland Bern; Ukraine Kyiv;
the Netherlands Amsterdam; the United Kingdom London; the Czech Republic Prague; Scotland Edinburgh; Wales Cardiff; England London"""
ASIA = """Afghanistan Kabul; Armenia Yerevan; Azerbaijan Baku; Bahrain Manama; Bangladesh Dhaka; Bhutan Thimphu; Cambodia Phnom Penh;
China Beijing; Georgia Tbilisi; India New Delhi; Indonesia Jakarta; Iran Tehran; Iraq Baghdad; Israel Jerusalem; Japan Tokyo; Jordan Amman;
Kazakhstan Astana; Kuwait Kuwait City; Kyrgyzstan Bishkek; Laos Vientiane; Lebanon Beirut; Malaysia Kuala Lumpur; Mongolia Ulaanbaatar;
Nepal Kathmandu; North Korea Pyongyang; Oman Muscat; Pakistan Islamabad; Qatar Doha; Saudi Arabia Riyadh; South Korea Seoul; Syria Damascus;
Taiwan Taipei; Tajikistan Dushanbe; Thailand Bangkok; Turkey Ankara; Turkmenistan Ashgabat; Uzbekistan Tashkent; Vietnam Hanoi; Yemen Sanaa;
the Philippines Manila; the United Arab Emirates Abu Dhabi"""
AFRICA = """Algeria Algiers; Angola Luanda; Benin Porto-Novo; Botswana Gaborone; Burundi Gitega; Cameroon Yaounde; Chad N'Djamena;
Egypt Cairo; Eritrea Asmara; Ethiopia Addis Ababa; Gabon Libreville; Ghana Accra; Guinea Conakry; Kenya Nairobi; Liberia Monrovia;
Libya Tripoli; Madagascar Antananarivo; Malawi Lilongwe; Mali Bamako; Mauritania Nouakchott; Mauritius Port Louis; Morocco Rabat;
Mozambique Maputo; Namibia Windhoek; Niger Niamey; Nigeria Abuja; Rwanda Kigali; Senegal Dakar; Sierra Leone Freetown; Somalia Mogadishu;
South Sudan Juba; Sudan Khartoum; Togo Lome; Tunisia Tunis; Uganda Kampala; Zambia Lusaka; Zimbabwe Harare"""
NORTH_AMERICA = """Belize Belmopan; Canada Ottawa; Costa Rica San Jose; Cuba Havana; El Salvador San Salvador; Guatemala Guatemala City;
Haiti Port-au-Prince; Honduras Tegucigalpa; Jamaica Kingston; Mexico Mexico City; Nicaragua Managua; Panama Panama City; Barbados Bridgetown;
the United States Washington; the Bahamas Nassau; the Dominican Republic Santo Domingo; Grenada Saint George's"""
SOUTH_AMERICA = """Argentina Buenos Aires; Bolivia Sucre; Brazil Brasilia; Chile Santiago; Colombia Bogota; Ecuador Quito; Guyana Georgetown;
Paraguay Asuncion; Peru Lima; Suriname Paramaribo; Uruguay Montevideo; Venezuela Caracas"""
OCEANIA = """Australia Canberra; Fiji Suva; New Zealand Wellington; Papua New Guinea Port Moresby; Samoa Apia; Tonga Nuku'alofa; Vanuatu Port Vila"""
TWO_WORDS = {"Costa", "El", "New", "North", "Saudi", "Sierra", "South"}


def _countries():
    for continent, text in (("Europe", EUROPE), ("Asia", ASIA), ("Africa", AFRICA), ("North America", NORTH_AMERICA),
                            ("South America", SOUTH_AMERICA), ("Oceania", OCEANIA)):
        for entry in text.replace("\n", " ").split(";"):
            words = entry.split()
            n = 2 if words[0] in TWO_WORDS else 1
            if words[0] == "Papua":
                n = 3
            if words[0] == "the":
                n = 4 if words[1:4] == ["United", "Arab", "Emirates"] else 3 if words[1] in ("United", "Czech", "Dominican") else 2
            yield " ".join(words[:n]), " ".join(words[n:]), continent


COUNTRIES = list(_countries())
CAPITAL = {country: capital for country, capital, _ in COUNTRIES}

WHAT = ("What is the capital of {}?", "What's the capital of {}?", "Which city is the capital of {}?", "Tell me the capital of {}.",
        "Name the capital of {}.", "What city is the capital of {}?", "Do you know the capital of {}?", "capital of {}?", "Capital of {}",
        "The capital of {} is which city?", "Please tell me the capital of {}.", "I want to know the capital of {}.",
        "What is the name of the capital of {}?", "Which city is {}'s capital?", "What is {}'s capital?", "What is {}'s capital city?",
        "Can you name the capital of {}?", "Could you tell me what the capital of {} is?", "What do we call the capital of {}?",
        "What is the capital city of {}?", "Quick question: what is the capital of {}?", "Hi! What is the capital of {}?",
        "I forgot the capital of {}. What is it?", "For my homework: what is the capital of {}?")
# phrasings of the questions; training never sees them
WHAT_HELD_OUT = ("Can you tell me which city is the capital of {}?", "Please name the capital city of {}.",
                 "Do you know what the capital of {} is called?", "Which city is the capital city of {}?",
                 "Hello! Could you tell me the name of the capital of {}?")
REVERSE = ("Which country has the capital {}?", "{} is the capital of which country?", "Of which country is {} the capital?",
           "What country is {} the capital of?", "Which country's capital is {}?")
WHERE = ("On which continent is {}?", "Where is {}?", "Which continent is {} in?", "What continent does {} belong to?",
         "In which part of the world is {}?")
IS = ("Is {1} the capital of {0}?", "Is the capital of {0} {1}?", "{1} is the capital of {0}, right?")


def capital(s: str) -> str:
    return s[0].upper() + s[1:]


def answer(country: str) -> str:
    return f"The capital of {country} is {CAPITAL[country]}."


def unseen(rng) -> Document:
    """In a phrasing that training never uses."""
    country = rng.choice(COUNTRIES)[0]
    return ask(rng.choice(WHAT_HELD_OUT).format(country), answer(country))


def sample(rng) -> Document:
    country, city, continent = rng.choice(COUNTRIES)
    r = rng.random()
    if r < 0.62:
        return ask(loosely(rng, rng.choice(WHAT).format(country)), answer(country))
    if r < 0.74:
        options = [c for c in COUNTRIES if c[1] == city]
        if len(options) == 1:
            return ask(loosely(rng, rng.choice(REVERSE).format(city)), f"{city} is the capital of {country}.")
    if r < 0.86:
        return ask(loosely(rng, rng.choice(WHERE).format(country)), f"{capital(country)} is in {continent}.")
    if r < 0.96:
        other = city if rng.random() < 0.5 else rng.choice(COUNTRIES)[1]
        reply = f"Yes, the capital of {country} is {city}." if other == city else f"No, the capital of {country} is {city}."
        return ask(capital(loosely(rng, rng.choice(IS).format(country, other))), reply)
    return Document(raw="\n".join(f"The capital of {x} is {y}. {capital(x)} is in {z}." for x, y, z in rng.sample(COUNTRIES, 6)) + "\n")
