"""Phrases of phantom reports for the chest and for the organs beside the kidneys. See `wording.py` for the slots."""

from __future__ import annotations

CORONARY = (
    "{grade} coronary artery calcification.",
    "There is {grade} calcification of the coronary arteries.",
    "{grade} calcified coronary plaque.",
    "{grade} coronary calcifications are noted.",
    "The coronary arteries are {gradely} calcified.",
    "Coronary artery calcification is {grade}.",
    "{grade} coronary atherosclerotic calcification is present.",
    "{grade} calcifications along the coronary arteries.",
)
CORONARY_GRADE = {"mild": ("mild", "minor", "minimal"), "moderate": ("moderate",), "severe": ("severe", "heavy", "extensive")}
CORONARY_GRADELY = {
    "mild": ("mildly", "minimally"),
    "moderate": ("moderately",),
    "severe": ("severely", "heavily", "extensively"),
}
NO_CORONARY = (
    "No coronary artery calcification.",
    "No coronary calcifications.",
    "The coronary arteries are free of calcification.",
    "There is no calcification of the coronary arteries.",
    "The coronary arteries are not calcified.",
    "No calcified coronary plaque.",
    "Coronary calcification is absent.",
)
CARDIOMEGALY = (
    "The heart is enlarged.",
    "Cardiomegaly.",
    "There is cardiomegaly, with a cardiothoracic ratio of {ratio}.",
    "Enlarged heart, transverse diameter {width}.",
    "The cardiac silhouette is enlarged.",
    "Cardiomegaly is present; the heart is {width} wide.",
    "Cardiac enlargement, cardiothoracic ratio {ratio}.",
    "The heart size is increased.",
)
NO_CARDIOMEGALY = (
    "The heart is normal in size.",
    "Heart size is normal.",
    "No cardiomegaly.",
    "The heart is not enlarged, cardiothoracic ratio {ratio}.",
    "Normal heart size.",
    "The cardiac silhouette is not enlarged.",
    "Heart of normal size, transverse diameter {width}.",
)
PERICARDIAL = (
    "There is a pericardial effusion of {size}.",
    "Pericardial effusion measuring up to {size}.",
    "A {size} pericardial effusion is present.",
    "Pericardial fluid with a thickness of {size}.",
    "Fluid surrounds the heart within the pericardium, {size} thick.",
    "A rim of pericardial fluid, {size} deep.",
    "The pericardial sac contains fluid up to {size}.",
    "Pericardial effusion, greatest thickness {size}.",
)
NO_PERICARDIAL = (
    "No pericardial effusion.",
    "There is no pericardial fluid.",
    "No fluid in the pericardium.",
    "The pericardium is unremarkable.",
    "Pericardial effusion is absent.",
    "No pericardial effusion is seen.",
    "The pericardium is free of fluid.",
)
ANEURYSM = (
    "The ascending aorta is aneurysmal, measuring {size}.",
    "Aneurysm of the ascending aorta, {size}.",
    "Ascending aortic aneurysm with a diameter of {size}.",
    "There is aneurysmal dilatation of the ascending aorta to {size}.",
    "The ascending thoracic aorta is dilated to {size}, in keeping with an aneurysm.",
    "A {size} ascending aortic aneurysm is present.",
    "Thoracic aortic aneurysm: the ascending aorta measures {size}.",
    "Aneurysmal ascending aorta of {size}.",
)
NO_ANEURYSM = (
    "The ascending aorta measures {size}, without aneurysm.",
    "No aneurysm of the ascending aorta ({size}).",
    "The ascending aorta is of normal calibre at {size}.",
    "No thoracic aortic aneurysm; the ascending aorta measures {size}.",
    "The ascending aorta is not dilated, {size}.",
    "Ascending aorta {size}, not aneurysmal.",
    "The thoracic aorta is normal in caliber.",
    "No aneurysmal dilatation of the ascending aorta.",
)
EFFUSION = (
    "There is a {amount} {side} pleural effusion.",
    "{amount} {side} pleural effusion, {size} deep.",
    "{side} pleural effusion measuring {size} in depth.",
    "A {amount} pleural effusion is present on the {side}.",
    "{side}-sided pleural effusion of {size}.",
    "Pleural fluid on the {side}, {size} deep.",
    "{amount} effusion in the {side} pleural space.",
    "Layering {side} pleural fluid, up to {size}.",
)
EFFUSION_BOTH = (
    "Bilateral pleural effusions, {right} on the right and {left} on the left.",
    "There are bilateral pleural effusions.",
    "Pleural effusions on both sides.",
    "Bilateral pleural fluid, {right} deep on the right and {left} on the left.",
)
NO_EFFUSION = (
    "No pleural effusion.",
    "No pleural effusions.",
    "There is no pleural fluid.",
    "The pleural spaces are clear.",
    "No pleural effusion on either side.",
    "Pleural effusion is absent bilaterally.",
    "Both pleural spaces are free of fluid.",
)
NO_EFFUSION_SIDE = (
    "No {side} pleural effusion.",
    "No pleural effusion on the {side}.",
    "The {side} pleural space is clear.",
    "There is no {side}-sided pleural effusion.",
    "The {side} pleural cavity is free of fluid.",
    "No pleural fluid on the {side}.",
)
LUNGS = (
    "The lungs are clear.",
    "No focal consolidation.",
    "Lungs without infiltrate.",
    "No pulmonary consolidation.",
    "The airways are patent.",
)

LIVER = (
    "The liver measures {size} craniocaudally.",
    "Liver span {size}.",
    "The liver is {size} in length.",
    "Craniocaudal liver length {size}.",
)
FATTY = (
    "The liver is diffusely low in attenuation, in keeping with steatosis.",
    "Hepatic steatosis.",
    "Fatty liver.",
    "Liver attenuation is well below that of the spleen, consistent with fatty infiltration.",
    "Diffuse fatty infiltration of the liver.",
    "Steatosis of the liver.",
)
NOT_FATTY = (
    "Liver attenuation is normal.",
    "No hepatic steatosis.",
    "The liver is homogeneous.",
    "No fatty infiltration of the liver.",
    "Normal liver attenuation without steatosis.",
)
SPLEEN = (
    "The spleen measures {size}.",
    "Spleen length {size}.",
    "The spleen is {size} in craniocaudal extent.",
    "Splenic length is {size}.",
)
OTHER = (
    "No free fluid in the abdomen.",
    "No enlarged lymph nodes.",
    "The bowel is unremarkable.",
    "The pancreas is normal.",
    "No suspicious osseous lesion.",
    "The adrenal glands are unremarkable.",
    "Degenerative changes of the spine.",
    "The gallbladder is unremarkable.",
)

IMPRESSION_CORONARY = (
    "{grade} coronary calcification.",
    "{grade} coronary artery calcification.",
    "Coronary calcification, {grade}.",
)
IMPRESSION_CARDIOMEGALY = ("Cardiomegaly.", "Enlarged heart.", "Cardiac enlargement.")
IMPRESSION_PERICARDIAL = ("Pericardial effusion.", "Pericardial effusion, {size}.", "{size} pericardial effusion.")
IMPRESSION_ANEURYSM = (
    "Ascending aortic aneurysm, {size}.",
    "Aneurysm of the ascending aorta ({size}).",
    "Aneurysmal ascending aorta.",
)
IMPRESSION_EFFUSION = ("{side} pleural effusion.", "{amount} {side} pleural effusion.", "{side}-sided pleural effusion.")
IMPRESSION_EFFUSION_BOTH = ("Bilateral pleural effusions.", "Pleural effusions bilaterally.", "Effusions in both pleural spaces.")
IMPRESSION_CHEST = (
    "No acute cardiothoracic abnormality.",
    "Unremarkable chest otherwise.",
    "No pleural or pericardial effusion.",
)
IMPRESSION_FATTY = ("Hepatic steatosis.", "Fatty liver.", "Steatosis of the liver.")
