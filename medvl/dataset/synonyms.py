"""What hospitals call the columns of a spreadsheet; the wanted name first, then by how sure it is."""

from __future__ import annotations

_WORDS = {
    "patient_id": """
        patient_id patient patientid pat_id pid subject_id subject case_id mrn medical_record_number
        patient_number patientennummer patienten_id pat_nr id_patient numero_patient pseudonym study_subject
    """,
    "study": """
        study path dicom dicom_path dicom_folder folder directory ct ct_path scan scan_path image image_path
        volume study_path series_path file nifti nifti_path study_instance_uid study_uid suid dicomweb
        wado_url study_url studie pfad
    """,
    "report": """
        report report_text report_file report_path radiology_report text befund befundtext findings_text
        compte_rendu informe referto rapport report_body narrative
    """,
    "split": "split set fold partition subset dataset_split",
    "phase": "phase contrast_phase ct_phase kontrastphase acquisition_phase",
    "site": "site hospital centre center institution clinic site_id klinik standort",
    "sex": "sex gender patient_sex geschlecht sexe sexo sesso",
    "age_years": "age_years age age_at_scan age_at_diagnosis patient_age alter",
    "accession": "accession accession_number accession_no acc acc_no order_number auftragsnummer",
    "time_days": "time_days time days survival_days os_days os_time followup_days follow_up_days duration",
    "time_months": "time_months months os_months survival_months followup_months follow_up_months",
    "time_years": "time_years os_years survival_years followup_years follow_up_years",
    "event": "event death dead died status vital_status os_event os_status deceased censored_event",
    "scan_date": "scan_date study_date ct_date exam_date examination_date untersuchungsdatum date_of_scan",
    "diagnosis_date": "diagnosis_date date_of_diagnosis dx_date surgery_date date_of_surgery diagnosedatum",
    "last_seen_date": """
        last_seen_date last_follow_up last_followup_date last_contact date_last_seen censor_date fu_date
        last_follow_up_date date_of_last_follow_up
    """,
    "death_date": "death_date date_of_death dod todesdatum date_of_event event_date",
    "birth_date": "birth_date date_of_birth dob birthdate geburtsdatum patient_birth_date",
}
_PERSONAL = """
    patient_name name first_name last_name surname given_name family_name vorname nachname address
    street phone telephone email referring_physician referrer physician doctor radiologist reporter arzt
    insurance_number ssn nhs_number series_instance_uid sop_instance_uid
"""
SYNONYMS = {wanted: tuple(words.split()) for wanted, words in _WORDS.items()}
IDENTIFIERS = tuple(_PERSONAL.split())
COVARIATES = ("bmi", "weight_kg", "height_cm")
