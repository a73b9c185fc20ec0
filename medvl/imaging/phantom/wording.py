"""The phrases that phantom reports are built from. Slots: `{size}`, `{loc}` (where, with its side), `{kidney}`, `{items}`...

Plain data, written for variety: several ways to say each thing, so that a text tower has to learn meaning and not one string.
Every phrase that refers back ("it", "the lesion") is only used right after the sentence it refers to.
"""

from __future__ import annotations

HEADERS = {
    "technique": ("TECHNIQUE:", "Technique:", "TECHNIQUE", "CT technique:", "PROCEDURE:", "Protocol:"),
    "findings": ("FINDINGS:", "Findings:", "FINDINGS", "Description:", "REPORT:", "CT findings:"),
    "impression": ("IMPRESSION:", "Impression:", "IMPRESSION", "Conclusion:", "OPINION:", "Summary:"),
}

COVERAGE = {
    "chest": ("CT of the chest", "Chest CT", "CT thorax", "Helical CT of the thorax"),
    "abdomen": ("CT of the abdomen", "Abdominal CT", "CT abdomen", "Helical CT of the abdomen"),
    "chest_abdomen": (
        "CT of the chest and abdomen",
        "CT thorax and abdomen",
        "Chest and abdominal CT",
        "Helical CT of the chest and abdomen",
    ),
}

PHASE = {
    "noncontrast": ("without intravenous contrast", "without contrast", "unenhanced", "native phase, no contrast medium"),
    "arterial": (
        "with intravenous contrast in the arterial phase",
        "arterial phase",
        "corticomedullary (arterial) phase after iodinated contrast",
    ),
    "portal_venous": (
        "with intravenous contrast in the portal venous phase",
        "portal venous phase",
        "70 s after iodinated contrast, portal venous phase",
    ),
    "delayed": (
        "with intravenous contrast in the delayed phase",
        "delayed phase",
        "excretory (delayed) phase after iodinated contrast",
    ),
}

MASS_OPEN = (
    "There is a {size} {adj}mass in {loc}.",
    "A {adj}mass measuring {size} is seen in {loc}.",
    "{loc} contains a {size} {adj}mass.",
    "A {size} {adj}lesion arises from {loc}.",
    "{adj}renal neoplasm of {size} in {loc}.",
    "In {loc} there is a {adj}tumour measuring {size}.",
    "{adj}lesion in {loc}, measuring {size}.",
    "A {adj}tumor with a diameter of {size} involves {loc}.",
    "{adj}mass, {size}, centred in {loc}.",
    "Arising from {loc} is a {size} {adj}neoplasm.",
    "Demonstrated in {loc} is a {adj}mass of up to {size}.",
)
MASS_DETAIL = {
    ("exophytic", True): (
        "It is predominantly exophytic.",
        "The lesion is exophytic, bulging beyond the renal contour.",
        "More than half of it lies outside the renal outline.",
        "It has a largely exophytic growth pattern.",
        "The mass projects outward into the perinephric fat.",
        "The tumour is mostly exophytic.",
        "Exophytic growth is noted.",
        "It protrudes well beyond the kidney outline.",
    ),
    ("exophytic", False): (
        "It is predominantly endophytic.",
        "The lesion lies mostly within the parenchyma.",
        "It is not exophytic.",
        "More than half of it is contained within the renal outline.",
        "The mass is largely endophytic.",
        "The tumour is mostly intraparenchymal.",
        "Endophytic growth is noted.",
    ),
    ("necrosis", True): (
        "It shows central necrosis.",
        "There is a necrotic core.",
        "A central non-enhancing area is consistent with necrosis.",
        "The mass is centrally necrotic.",
        "Internal necrosis is present.",
        "Its centre is of fluid attenuation, in keeping with necrosis.",
        "The lesion contains a necrotic centre.",
        "Areas of central necrosis are seen.",
    ),
    ("necrosis", False): (
        "No necrosis.",
        "There is no central necrosis.",
        "The lesion is without necrosis.",
        "It has no necrotic component.",
        "Necrosis is not seen.",
        "It is free of necrosis.",
        "No necrotic core is identified in it.",
    ),
    ("calcification", True): (
        "It contains coarse calcification.",
        "Internal calcification is present.",
        "The lesion is partly calcified.",
        "Coarse calcifications are seen within it.",
        "There are foci of calcium within the mass.",
        "Calcification is noted within the tumour.",
        "The mass shows coarse calcific deposits.",
        "Chunky internal calcifications are evident.",
    ),
    ("calcification", False): (
        "No internal calcification.",
        "It is not calcified.",
        "There is no calcification within the lesion.",
        "The mass is free of calcification.",
        "Calcification is absent.",
        "Without calcification.",
        "No calcific deposits in the tumour.",
    ),
    ("avid", True): (
        "It enhances avidly.",
        "There is avid enhancement.",
        "The mass is hypervascular.",
        "It shows intense enhancement.",
        "The solid part enhances briskly.",
        "Marked enhancement is seen.",
        "The lesion is hyperenhancing.",
        "Strong, avid contrast uptake is noted.",
    ),
    ("avid", False): (
        "It enhances only mildly.",
        "There is mild enhancement.",
        "The mass is hypovascular.",
        "It shows low-level enhancement.",
        "The solid part is hypoenhancing.",
        "Only slight enhancement is seen.",
        "The lesion enhances poorly.",
        "Enhancement is weak.",
    ),
}
MASS_WITH = {
    ("exophytic", True): ("exophytic", "predominantly exophytic", "mostly exophytic"),
    ("exophytic", False): ("endophytic", "predominantly endophytic", "mostly endophytic"),
    ("necrosis", True): ("with central necrosis", "with a necrotic core", "with internal necrosis"),
    ("calcification", True): ("with coarse calcification", "containing calcifications", "with internal calcification"),
    ("avid", True): ("avidly enhancing", "hypervascular", "hyperenhancing"),
    ("avid", False): ("mildly enhancing", "hypoenhancing", "hypovascular"),
}
COMPOSITION = {
    "solid": ("solid", "solid", "solid-appearing"),
    "cystic": ("cystic", "complex cystic", "predominantly cystic"),
}
CYSTIC_DETAIL = (
    "An enhancing wall and mural nodule are seen.",
    "It has a thick wall with an enhancing nodule.",
    "A mural nodule is present along its wall.",
    "The wall is thickened and nodular.",
)

CYST_OPEN = (
    "There is a {size} simple cyst in {loc}.",
    "A {size} cortical cyst is present in {loc}.",
    "Simple cyst in {loc}, {size}.",
    "{loc} contains a {size} cyst of water attenuation.",
    "A non-enhancing cyst measuring {size} is noted in {loc}.",
    "In {loc} a simple cyst measures {size}.",
    "Bosniak 1 cyst of {size} in {loc}.",
    "A thin-walled fluid-density cyst ({size}) lies in {loc}.",
    "A benign-appearing cyst of {size} is seen in {loc}.",
    "Likely simple cyst in {loc} measuring {size}.",
)
CYSTS_OPEN = (
    "{count} simple cysts in the {kidney}, the largest {size} in {place}.",
    "The {kidney} contains {count} simple cysts, the largest measuring {size} in {place}.",
    "There are {count} cortical cysts in the {kidney}, up to {size} ({place}).",
    "{count} cysts are seen in the {kidney}; the largest is in {place} and measures {size}.",
    "{count} water-density cysts of the {kidney}, the biggest {size} in {place}.",
)
STONE_OPEN = (
    "There is a {size} stone in {loc}.",
    "A {size} calculus is present in {loc}.",
    "Non-obstructing calculus in {loc}, {size}.",
    "{loc} contains a {size} calculus.",
    "A stone measuring {size} is seen in {loc}.",
    "Nephrolithiasis with a {size} stone in {loc}.",
    "In {loc} there is a dense calculus of {size}.",
    "A {size} renal stone lies in {loc}.",
    "A calyceal stone ({size}) is noted in {loc}.",
)
STONES_OPEN = (
    "{count} stones in the {kidney}, the largest {size} in {place}.",
    "The {kidney} contains {count} calculi, the largest measuring {size} in {place}.",
    "Nephrolithiasis of the {kidney} with {count} stones, up to {size} ({place}).",
    "{count} calculi are seen in the {kidney}; the largest is in {place} and measures {size}.",
)
HYDRO_OPEN = (
    "There is {grade} hydronephrosis of the {kidney}.",
    "{grade} hydronephrosis of the {kidney}.",
    "{grade} pelvicalyceal dilatation of the {kidney}.",
    "The collecting system of the {kidney} is {gradely} dilated.",
    "{grade} dilatation of the renal pelvis and calyces of the {kidney}.",
    "The {kidney} shows {grade} hydronephrosis.",
    "{grade} distension of the collecting system of the {kidney}.",
    "The {kidney} is {gradely} hydronephrotic.",
    "{grade} pelvicaliectasis is present in the {kidney}.",
)
GRADE_WORDS = {"mild": ("mild", "slight"), "moderate": ("moderate",), "severe": ("severe", "marked", "gross")}
GRADELY = {"mild": ("mildly", "slightly"), "moderate": ("moderately",), "severe": ("severely", "markedly", "grossly")}

ABSENT_ITEM = {
    "mass": ("mass", "solid mass", "focal mass", "suspicious lesion", "tumour", "neoplasm", "space-occupying lesion"),
    "cyst": ("cyst", "cysts", "cortical cyst", "simple cyst"),
    "stone": ("stone", "calculus", "nephrolithiasis", "calculi", "stones"),
    "hydronephrosis": ("hydronephrosis", "pelvicalyceal dilatation", "collecting system dilatation", "hydronephrosis"),
}
ABSENT_LIST = (
    "No {items} in the {kidney}.",
    "The {kidney} shows no {items}.",
    "There is no {items} in the {kidney}.",
    "No {items} is seen in the {kidney}.",
    "The {kidney} is without {items}.",
    "No evidence of {items} in the {kidney}.",
    "No {items} of the {kidney}.",
    "The {kidney} is free of {items}.",
    "No {items} identified in the {kidney}.",
)
ABSENT_BOTH = (
    "No {items} on either side.",
    "No {items} in either kidney.",
    "Neither kidney shows {items}.",
    "Both kidneys are free of {items}.",
    "There is no {items} bilaterally.",
    "The kidneys are without {items}.",
    "No {items} in the right or left kidney.",
)
ABSENT_ONE = {
    "hydronephrosis": (
        "The collecting system of the {kidney} is not dilated.",
        "Non-dilated collecting system of the {kidney}.",
        "The renal pelvis of the {kidney} is not dilated.",
        "The collecting system of the {kidney} is decompressed.",
        "The {kidney} is not hydronephrotic.",
        "Hydronephrosis of the {kidney} is absent.",
    ),
    "stone": (
        "No radiopaque calculus in the {kidney}.",
        "The {kidney} is stone-free.",
        "Nephrolithiasis of the {kidney} is not seen.",
        "No calyceal stone in the {kidney}.",
        "Calculi are absent in the {kidney}.",
        "No renal stones in the {kidney}.",
    ),
    "mass": (
        "No suspicious mass in the {kidney}.",
        "No renal mass in the {kidney}.",
        "The {kidney} has no focal mass lesion.",
        "A mass is not identified in the {kidney}.",
        "The {kidney} does not show a tumour.",
        "No evidence of renal neoplasm in the {kidney}.",
    ),
    "cyst": (
        "No cyst is seen in the {kidney}.",
        "No cystic change of the {kidney}, no cyst.",
        "Cysts are absent in the {kidney}.",
        "The {kidney} does not contain a cyst.",
        "No cortical or parapelvic cyst in the {kidney}.",
        "The {kidney} has no cysts.",
    ),
}
NORMAL_KIDNEY = (
    "The {kidney} is unremarkable.",
    "Normal {kidney}.",
    "The {kidney} is normal.",
    "The {kidney} appears normal.",
    "No abnormality of the {kidney}.",
    "The {kidney} is within normal limits.",
)
NORMAL_BOTH = (
    "The kidneys are unremarkable.",
    "Both kidneys are normal.",
    "Normal kidneys.",
    "No abnormality of the kidneys.",
    "Both kidneys appear unremarkable.",
    "The kidneys are within normal limits.",
)
LENGTH = (
    "The {kidney} measures {size} in length.",
    "The {kidney} is {size} long.",
    "Length of the {kidney}: {size}.",
    "The {kidney} spans {size} from pole to pole.",
    "The {kidney} has a craniocaudal length of {size}.",
    "Bipolar length of the {kidney} {size}.",
)
LENGTH_BOTH = (
    "The right kidney measures {right} and the left kidney {left} in length.",
    "Renal lengths: {right} on the right and {left} on the left.",
    "The kidneys measure {right} on the right and {left} on the left in length.",
    "The right kidney is {right} long, the left {left}.",
    "Right and left kidneys measure {right} and {left} in length, respectively.",
)

IMPRESSION_MASS = (
    "{size} {adj}mass in {loc}, suspicious for renal cell carcinoma.",
    "{side} renal {adj}mass ({size}), {pole}.",
    "{adj}{side} renal tumour of {size}, {pole}.",
    "Findings of a {side} renal neoplasm, {size}, {pole}.",
    "{side} kidney {adj}mass measuring {size}; urology referral advised.",
    "{adj}lesion of the {side} kidney, {size}, highly suspicious for malignancy.",
    "Known {side} renal mass, now {size}.",
    "{size} tumor of {loc}.",
)
IMPRESSION_CYST = (
    "{side} renal cyst.",
    "Simple cyst of the {side} kidney.",
    "Benign {side} renal cyst, {size}.",
    "Cyst in the {side} kidney ({size}).",
    "Cortical cyst on the {side}, {size}.",
    "{side}-sided renal cyst, no follow-up needed.",
)
IMPRESSION_STONE = (
    "{side} nephrolithiasis.",
    "{size} stone in the {side} kidney.",
    "{side} renal calculus, {size}.",
    "Calculus of the {side} kidney.",
    "{side}-sided renal stone.",
    "Nephrolithiasis on the {side}, up to {size}.",
)
IMPRESSION_HYDRO = (
    "{grade} {side} hydronephrosis.",
    "{grade} hydronephrosis on the {side}.",
    "{side}-sided {grade} hydronephrosis.",
    "{grade} pelvicalyceal dilatation of the {side} kidney.",
    "{grade} dilatation of the {side} renal collecting system.",
    "{side} hydronephrosis, {grade}.",
)
IMPRESSION_NORMAL = (
    "Normal {kidney}.",
    "No renal abnormality on the {side}.",
    "The {kidney} is unremarkable.",
    "Unremarkable {kidney}.",
)
IMPRESSION_NORMAL_BOTH = (
    "Normal kidneys.",
    "No renal mass, stone or hydronephrosis.",
    "No significant renal abnormality.",
    "Both kidneys are unremarkable.",
    "No mass or hydronephrosis in either kidney.",
    "Unremarkable kidneys.",
)
