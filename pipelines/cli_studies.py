"""Verbs for studies: look, convert, infer, receive, deliver, view, and keep the machine that does it in order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_app import BundleOption, Dates, Device, JsonOption, OutOption, PatientKeyOption, app, examples, existing, some_existing


@app.command(epilog=examples("medvl inspect study/", "medvl inspect export.zip --json"))
def inspect(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="DICOM folder or file, zip, or NIfTI.")],
    as_json: JsonOption = False,
) -> None:
    """Show what is in SOURCE: every series, its verdict with reason codes, and which one a model would use and why."""
    existing(source)
    from . import inspect as verb

    raise typer.Exit(verb.run(source, as_json=as_json))


@app.command(epilog=examples("medvl convert study/ --out nifti/"))
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="DICOM folder or file, zip, or NIfTI.")],
    out: OutOption,
) -> None:
    """Write one NIfTI in Hounsfield units for every series that is a volume; refused series give no file."""
    existing(source)
    from . import convert as verb

    raise typer.Exit(verb.run(source, out))


ReadersOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Processes that read and prepare studies; default: cores less one.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Longest time a study may take.")]
MemoryOption = Annotated[int, typer.Option("--memory", metavar="MB", min=256, help="Memory that reading one study may take.")]
DicomOption = Annotated[
    str | None,
    typer.Option("--dicom", metavar="KINDS", help="Also make DICOM objects: sr,seg,page,pdf or some of them; all with --send."),
]
SendOption = Annotated[
    list[str] | None,
    typer.Option("--send", metavar="ADDRESS", help="Send them: dicomweb+https://host/path or dicom://AE@host:port; repeatable."),
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML (mode 0600) with user and password, or token; default: MEDVL_DICOMWEB_* variables."),
]
CaOption = Annotated[Path | None, typer.Option("--ca-bundle", metavar="PEM", help="Certificate authority of the PACS.")]
CertOption = Annotated[Path | None, typer.Option("--client-cert", metavar="PEM", help="Our certificate and key for the PACS.")]
PlainOption = Annotated[bool, typer.Option("--allow-plain", help="Let DICOMweb run over plain http to other machines.")]
AnonymousOption = Annotated[
    bool, typer.Option("--deidentify", help="Take identity out of the DICOM objects, after the basic profile of PS3.15.")
]
AnonymousKeyOption = Annotated[
    Path | None,
    typer.Option("--deidentify-key", metavar="FILE", help="Key of `medvl deidentify`, so that objects fit its images."),
]
DatesOption = Annotated[Dates, typer.Option(metavar="remove|shift|keep", help="With --deidentify: dates of study and series.")]
RetainUidsOption = Annotated[bool, typer.Option("--retain-uids", help="With --deidentify: keep UIDs.")]
BatchOption = Annotated[int, typer.Option(metavar="N", min=1, help="Studies that go through the model together.")]
Bf16Option = Annotated[bool, typer.Option("--bf16", help="Run the image tower in bfloat16.")]
RetryQuarantinedOption = Annotated[
    bool, typer.Option("--retry-quarantined", help="Try studies again that were set aside for taking too much.")
]
RetryRefusedOption = Annotated[
    bool, typer.Option("--retry-refused", help="Send again what a PACS refused, once its login or rules are put right.")
]
LedgerOption = Annotated[
    str | None, typer.Option(metavar="URL", help="Ledger on a server, postgresql://..., for workers on several machines.")
]


@app.command(
    epilog=examples(
        "medvl infer study/ --bundle phantom-demo --out results",
        "medvl infer archive/ day2.zip ct.nii.gz list.csv -b phantom-demo -o results",
        "medvl infer study/ -b phantom-demo -o results --findings mine.yaml",
        "medvl infer 'dicomweb+https://pacs/dicom-web?StudyDate=today&ModalitiesInStudy=CT' -b phantom-demo -o results "
        "--send dicomweb+https://pacs/dicom-web",
    )
    + "\n\nFurther exit codes: 3 some studies have a reason instead of a result, or are not sent yet; 4 the run had to stop, on "
    "a full disk, say, and the same command goes on; 130 Ctrl-C and 143 SIGTERM likewise."
)
def infer(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="DICOM folders, zips, NIfTI files, DICOMweb queries, or .csv/.txt lists of these."),
    ],
    bundle: BundleOption,
    out: OutOption,
    *,
    device: Annotated[
        Device, typer.Option(metavar="auto|cpu|cuda", help="auto takes a CUDA device where there is one.")
    ] = Device.auto,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Masks of the regions of one study, as TotalSegmentator names them; they replace the localiser."
        ),
    ] = None,
    findings: Annotated[
        Path | None,
        typer.Option(metavar="YAML", help="Ask these findings; those the bundle has no calibration for get no verdict."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain/--no-explain", help="Heat maps and deletion tests; slower with.")] = True,
    readers: ReadersOption = None,
    batch: BatchOption = 4,
    bf16: Bf16Option = False,
    timeout: TimeoutOption = 600.0,
    memory: MemoryOption = 8192,
    retry_quarantined: RetryQuarantinedOption = False,
    retry_refused: RetryRefusedOption = False,
    dicom: DicomOption = None,
    send: SendOption = None,
    credentials: CredentialsOption = None,
    ca_bundle: CaOption = None,
    client_cert: CertOption = None,
    allow_plain: PlainOption = False,
    ledger: LedgerOption = None,
    deidentify: AnonymousOption = False,
    deidentify_key: AnonymousKeyOption = None,
    dates: DatesOption = Dates.remove,
    retain_uids: RetainUidsOption = False,
    patient_key: PatientKeyOption = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="local: this process. ray: workers of a Ray cluster (extra `cluster`).")
    ] = "local",
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Workers of --engine ray; default: 2.")] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option("--gpus-per-worker", metavar="X", min=0, help="GPUs of each worker, 0.5 for two on one.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="ADDRESS", help="Cluster that runs already; needs --ledger and a shared --out."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a model over studies: findings and heat maps for each, one table for all. A rerun goes on where it stopped."""
    existing(*([masks] if masks else []), *([findings] if findings else []))
    some_existing(inputs, out)
    from . import infer as verb
    from .cluster import crew_of
    from .station import Station

    station = Station(
        bundle, out, device.value, findings, explain, readers, batch, bf16, timeout, memory, retry_quarantined, dicom,
        tuple(send or ()), credentials, ca_bundle, client_cert, allow_plain, ledger, deidentify, deidentify_key, dates.value,
        retain_uids, retry_refused, patient_key,
    )  # fmt: skip
    crew = crew_of(engine, workers, gpus_per_worker, ray_address)
    raise typer.Exit(verb.run(inputs, station, crew=crew, masks=masks, as_json=as_json))


@app.command(
    epilog=examples(
        "medvl listen --port 11112 --allow PACS -b phantom-demo -o results",
        "medvl listen --port 11112 --allow PACS --host '' -b phantom-demo -o results --send dicom://PACS@pacs:104",
        "medvl listen --watch incoming/ -b phantom-demo -o results",
    )
    + "\n\nEnds with exit code 0 on Ctrl-C or SIGTERM; 4 when it had to stop. Started again, it goes on with what it had."
)
def listen(
    bundle: BundleOption,
    out: OutOption,
    *,
    port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Take studies by C-STORE here.")] = None,
    ae_title: Annotated[str, typer.Option("--ae-title", metavar="AE", help="Our AE title.")] = "MEDVL",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Interface to listen on; '' is every one.")] = "127.0.0.1",
    allow: Annotated[list[str] | None, typer.Option(metavar="AE", help="AE title that may send; may be repeated.")] = None,
    allow_any: Annotated[bool, typer.Option("--allow-any", help="Let everybody send; for a closed network only.")] = False,
    watch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Take what appears in this folder: studies, zips, NIfTI.")
    ] = None,
    quiet: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="A study is complete when nothing came for so long.")
    ] = 30.0,
    keep_hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="Keep received studies so long after they are through.")
    ] = 24.0,
    min_free_gb: Annotated[
        float, typer.Option("--min-free-gb", metavar="GB", min=0, help="With less free disk, senders are told to come back.")
    ] = 5.0,
    device: Annotated[
        Device, typer.Option(metavar="auto|cpu|cuda", help="auto takes a CUDA device where there is one.")
    ] = Device.auto,
    findings: Annotated[
        Path | None,
        typer.Option(metavar="YAML", help="Ask these findings; those the bundle has no calibration for get no verdict."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain/--no-explain", help="Heat maps and deletion tests; slower with.")] = True,
    readers: ReadersOption = None,
    batch: BatchOption = 4,
    bf16: Bf16Option = False,
    timeout: TimeoutOption = 600.0,
    memory: MemoryOption = 8192,
    retry_quarantined: RetryQuarantinedOption = False,
    retry_refused: RetryRefusedOption = False,
    dicom: DicomOption = None,
    send: SendOption = None,
    credentials: CredentialsOption = None,
    ca_bundle: CaOption = None,
    client_cert: CertOption = None,
    allow_plain: PlainOption = False,
    ledger: LedgerOption = None,
    deidentify: AnonymousOption = False,
    deidentify_key: AnonymousKeyOption = None,
    dates: DatesOption = Dates.remove,
    retain_uids: RetainUidsOption = False,
    patient_key: PatientKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take studies as they are sent (C-STORE) or appear in a folder, and do with each what `medvl infer` does."""
    existing(*([findings] if findings else []))
    from . import listen as verb
    from .station import Station

    station = Station(
        bundle, out, device.value, findings, explain, readers, batch, bf16, timeout, memory, retry_quarantined, dicom,
        tuple(send or ()), credentials, ca_bundle, client_cert, allow_plain, ledger, deidentify, deidentify_key, dates.value,
        retain_uids, retry_refused, patient_key,
    )  # fmt: skip
    door = verb.Door(port, ae_title, host, verb.allowed(allow), allow_any, watch, quiet, keep_hours, min_free_gb)
    raise typer.Exit(verb.run(door, station, as_json=as_json))


@app.command(
    epilog=examples(
        "medvl view --results results",
        "medvl view --results results --port 8600 --no-browser",
        "medvl view --results results --index index --bundle phantom-demo",
        "medvl view --add-user 'Ada Lovelace' --role reviewer --users users.yaml",
        "medvl view --results results --auth users --users users.yaml --host 10.0.0.5 --tls-cert cert.pem --tls-key key.pem",
    )
)
def view(
    results: Annotated[Path | None, typer.Option("--results", "-r", metavar="DIR", help="What `medvl infer` wrote.")] = None,
    *,
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Port on this machine.")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    index: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Index of `medvl index build`, in which similar cases are sought.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Dataset that the index was made from: lays its images beside the study.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option("--bundle", "-b", metavar="NAME", help="The results' bundle: for free prompts and other ages.")
    ] = None,
    show_text: Annotated[bool, typer.Option("--show-text", help="Show reviewers the reports of similar cases.")] = False,
    audit_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key of reviews and audit log, kept elsewhere than in the results.")
    ] = None,
    ledger: Annotated[
        str | None, typer.Option(metavar="URL", help="Ledger on a server, postgresql://..., for the worklist.")
    ] = None,
    auth: Annotated[
        str, typer.Option(metavar="local|users|oidc", help="How users sign in; local: not at all, on this machine only.")
    ] = "local",
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML (mode 0600) of users and roles, for users and oidc.")
    ] = None,
    user: Annotated[str, typer.Option(metavar="NAME", help="Your name in local mode; default: that of your account.")] = "",
    secrets: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Streamlit's secrets (mode 0600) with the OIDC client in [auth].")
    ] = None,
    idle_minutes: Annotated[float, typer.Option(metavar="N", help="Sign out after so long without use.")] = 15.0,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Interface to listen on; others than this machine need --auth.")
    ] = ("127.0.0.1"),
    name: Annotated[list[str] | None, typer.Option(metavar="HOST", help="Host name that users ask for; may be repeated.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate, to serve https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
    allow_plain: Annotated[bool, typer.Option("--allow-plain", help="Let other machines come over plain http.")] = False,
    add_user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write a user into --users, asking for the password; serve nothing.")
    ] = None,
    role: Annotated[str, typer.Option(metavar="reader|reviewer|admin", help="Of --add-user.")] = "reader",
    no_password: Annotated[bool, typer.Option("--no-password", help="With --add-user: one who signs in by OIDC.")] = False,
    remove_user: Annotated[str | None, typer.Option(metavar="NAME", help="Take a user out of --users; serve nothing.")] = None,
) -> None:
    """Open the viewer page on the results of `medvl infer`: on this machine, or behind a sign-in for others."""
    if results is not None:
        existing(results)
    from medvl_ui.launch import Door

    from . import view as verb

    if add_user is not None or remove_user is not None:
        raise typer.Exit(verb.keep_users(users, add_user, role, remove_user, password=not no_password))
    door = Door(
        host, tuple(name or ()), auth, users, user, idle_minutes, cert=tls_cert, key=tls_key, plain=allow_plain, secrets=secrets
    )
    raise typer.Exit(
        verb.run(
            results,
            port=port,
            open_browser=browser,
            index=index,
            dataset=dataset,
            bundle=bundle,
            show_text=show_text,
            audit_key=audit_key,
            ledger=ledger,
            door=door,
        )
    )
