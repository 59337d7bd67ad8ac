"""Puts firn's stack into the local cloud: the CDK app that goes to AWS, with this machine's builds of the functions.

Flow: `infra/cdk` + bootstraps -> synthesis by Node -> assets to the bootstrap bucket -> CloudFormation.

Always holds: what runs locally comes from the template alone; nothing of the stack is made in a second way.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from .paths import BINARIES, ROOT, VENV
from .processes import ServiceError
from .provision import node_modules
from .services import ACCOUNT, CREDENTIALS

FUNCTIONS = ("ingest", "commit", "ddl", "mapping", "maintain")


@dataclass(frozen=True)
class Stack:
    """What the deployed stack says about itself."""

    bucket: str
    database: str
    ingest_function: str
    commit_function: str


def client(service: str, endpoint: str) -> Any:
    """An SDK client of the local cloud."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=CREDENTIALS["AWS_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


def synthesize(folder: Path, settings: dict[str, Any]) -> Path:
    """Runs the CDK app; gives the folder of the cloud assembly."""
    app = node_modules(ROOT / "infra" / "cdk")
    assembly = folder / "cdk.out"
    made = subprocess.run(
        [VENV / "bin" / "node", "bin/firn.ts"],
        cwd=app,
        env={
            **os.environ,
            "CDK_OUTDIR": str(assembly),
            "CDK_CONTEXT_JSON": json.dumps(settings),
            "CDK_DEFAULT_REGION": CREDENTIALS["AWS_REGION"],
        },
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise ServiceError(f"the CDK app failed:\n{made.stdout}{made.stderr}")
    return assembly


def bootstraps(folder: Path) -> Path:
    """Lays out this machine's builds as the CDK app expects them: `firn-ingest/bootstrap` and so on."""
    for name in FUNCTIONS:
        target = folder / f"firn-{name}"
        target.mkdir(parents=True)
        shutil.copy2(BINARIES / name, target / "bootstrap")
    return folder


def deploy(folder: Path, endpoint: str) -> Stack:
    """Synthesizes, uploads and creates the stack."""
    settings = {
        "bootstraps": str(bootstraps(folder / "bootstraps")),
        "localEndpoint": endpoint,
        "bucketName": "firn-lake",
        "database": "firn",
        "logFilter": os.environ.get("RUST_LOG", "info"),
    }
    assembly = synthesize(folder, settings)
    _upload(assembly, endpoint)
    shutil.rmtree(folder / "bootstraps")
    template = (assembly / "FirnStack.template.json").read_text()
    formation = client("cloudformation", endpoint)
    formation.create_stack(StackName="FirnStack", TemplateBody=template, Capabilities=["CAPABILITY_NAMED_IAM"])
    outputs = _wait(formation)
    return Stack(
        bucket=outputs["BucketName"],
        database=outputs["DatabaseName"],
        ingest_function=outputs["IngestFunctionName"],
        commit_function=outputs["CommitFunctionName"],
    )


def _upload(assembly: Path, endpoint: str) -> None:
    store = client("s3", endpoint)
    manifest = json.loads((assembly / "FirnStack.assets.json").read_text())
    for asset in manifest["files"].values():
        source = assembly / asset["source"]["path"]
        content = _zip(source) if asset["source"]["packaging"] == "zip" else source.read_bytes()
        for destination in asset["destinations"].values():
            bucket = destination["bucketName"].replace("${AWS::AccountId}", ACCOUNT)
            bucket = bucket.replace("${AWS::Region}", CREDENTIALS["AWS_REGION"])
            store.create_bucket(Bucket=bucket)
            store.put_object(Bucket=bucket, Key=destination["objectKey"], Body=content)
        if source.is_dir():
            shutil.rmtree(source)


def _zip(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return out.getvalue()


def _wait(formation: Any) -> dict[str, str]:
    deadline = time.monotonic() + 60
    while True:
        stack = formation.describe_stacks(StackName="FirnStack")["Stacks"][0]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        if stack["StackStatus"] != "CREATE_IN_PROGRESS" or time.monotonic() > deadline:
            events = formation.describe_stack_events(StackName="FirnStack")["StackEvents"]
            failed = [e for e in events if "FAILED" in e["ResourceStatus"]]
            reasons = "\n".join(f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason')}" for e in failed)
            raise ServiceError(f"the stack is {stack['StackStatus']}:\n{reasons}")
        time.sleep(0.2)
