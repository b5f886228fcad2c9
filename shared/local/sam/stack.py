"""Translates the template as AWS does, creates its stack in moto, and looks whether what was made knows each other: functions
their roles, logs, secrets and bucket, the bucket its queue, queues and schedules their functions, the API's routes theirs.

With the optional parts (VPC, RDS Proxy, JWT authorizer, mail, language model, rotation) and without them.

What this does not show: moto passes over types that it does not know (API Gateway's, function URLs, secrets, proxies, rotation schedules) and
properties that it does not know (notifications, logs), and refuses little of what AWS refuses. It asks no policy whether somebody may
do what they do, runs no function (so not the custom resource that migrates), and knows no quotas. Where it knows nothing, references are
followed here, in the translated template.
"""

import ast
import json
import logging
import os
import re
import sys
import warnings
from pathlib import Path

os.environ |= {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "SAM_TRANSLATOR_TELEMETRY": "0",
}

import boto3  # noqa: E402 (it reads the environment)
from moto import mock_aws  # noqa: E402
from samtranslator.public.translator import ManagedPolicyLoader  # noqa: E402
from samtranslator.translator.transform import transform  # noqa: E402
from samtranslator.yaml_helper import yaml_parse  # noqa: E402

ACCOUNT = "123456789012"
REGION = "eu-central-1"
STACK = "lockstep-dev"

# Of what moto does not know, at length.
warnings.simplefilter("ignore")
logging.disable()

wrong = []


def holds(condition, what):
    if not condition:
        wrong.append(what)


def secret(name):
    return boto3.client("secretsmanager").create_secret(Name=name, SecretString="x")["ARN"]


def required():
    return {
        "Architecture": "x86_64",
        "DatabaseUrlArn": secret("database"),
        "OwnerDatabaseUrlArn": secret("owner"),
        "QdrantUrl": "https://qdrant.example:6334",
        "QdrantApiKeyArn": secret("qdrant"),
        "TokenJwksArn": secret("jwks"),
        "TokenSigningKeyArn": secret("signing"),
    }


def everything():
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="lockstep", Description="lockstep", VpcId=vpc)["GroupId"]
    rotate = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:rotate"
    return required() | {
        "Authorizer": "jwt",
        "Issuer": "https://lockstep.example",
        "MailFrom": "lockstep@example.com",
        "LlmUrl": "https://llm.example/v1",
        "LlmModel": "model",
        "LlmApiKeyArn": secret("llm"),
        "BedrockModel": "",
        "AlarmEmail": "operator@example.com",
        "SubnetIds": subnet,
        "SecurityGroupIds": group,
        "ProxySecretArn": secret("proxy"),
        "ProxyCluster": "aurora",
        "DatabaseRotationArn": rotate,
        "SigningKeyRotationArn": rotate,
    }


def translated():
    text = Path("template.yaml").read_text()
    # What `sam deploy` puts in the zips' place.
    template = yaml_parse(re.sub(r"CodeUri: dist/(\S+)", r"CodeUri: s3://zips/\1", text))
    boto3.client("s3").create_bucket(Bucket="zips", CreateBucketConfiguration={"LocationConstraint": REGION})
    for name in re.findall(r"CodeUri: dist/(\S+)", text):
        boto3.client("s3").put_object(Bucket="zips", Key=name, Body=b"PK\x05\x06" + bytes(18))
    return transform(template, {}, ManagedPolicyLoader(boto3.client("iam")))


def references(value):
    """The names that a part of a template refers to."""
    if isinstance(value, list):
        for one in value:
            yield from references(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key == "Ref":
                yield one
            elif key == "Fn::GetAtt":
                yield (one if isinstance(one, str) else one[0]).split(".")[0]
            elif key == "Fn::Sub":
                yield from (name.split(".")[0] for name in re.findall(r"\$\{(\w[\w.:]*)\}", one if isinstance(one, str) else one[0]))
                if isinstance(one, list):
                    yield from references(one[1])
            elif key == "DependsOn":
                yield from [one] if isinstance(one, str) else one
            else:
                yield from references(one)


def choices(value):
    """The alternatives of a template that hang on a condition: its name, and both."""
    if isinstance(value, (list, dict)):
        if isinstance(value, dict) and "Fn::If" in value:
            yield value["Fn::If"]
        for one in value.values() if isinstance(value, dict) else value:
            yield from choices(one)


def check_secrets(template):
    made = {name for name, one in template["Resources"].items() if one["Type"] == "AWS::SecretsManager::Secret"}
    named = set()
    for condition, then, otherwise in choices(template):
        if condition.startswith("Makes"):
            parameter = condition.removeprefix("Makes")
            holds(then == {"Ref": f"{parameter}Secret"} and otherwise == {"Ref": f"{parameter}Arn"}, f"{condition} chooses another secret")
            entry = template["Resources"][then["Ref"]]
            holds(entry["Condition"] == condition, f"{then} is made on another condition than {condition}")
            holds(entry["Properties"]["SecretString"] == {"Ref": parameter}, f"{then} does not hold {parameter}")
            holds(template["Parameters"][parameter]["NoEcho"], f"{parameter} is shown")
            named.add(then["Ref"])
    holds(made == named, f"nobody reads {made - named}")


def check_references(template):
    # SAM makes names of resources by itself; CloudFormation refuses one that a parameter has.
    both = set(template["Resources"]) & set(template["Parameters"])
    holds(not both, f"{both} are names of parameters and of resources")
    known = set(template["Resources"]) | set(template["Parameters"])
    for part in ("Resources", "Outputs"):
        for name, one in template[part].items():
            for other in references(one):
                holds(other in known or other.startswith("AWS::"), f"{name} refers to {other}, which is not there")
    told = template["Resources"]["Inbox"]["Properties"]["NotificationConfiguration"]
    holds(set(references(told)) == {"Events"}, "the inbox tells another queue")
    for name, one in template["Resources"].items():
        if one["Type"] == "AWS::Lambda::Function":
            (log,) = references(one["Properties"]["LoggingConfig"])
            holds(template["Resources"][log]["Type"] == "AWS::Logs::LogGroup", f"{name}'s log is none")
    routes = [one for one in template["Resources"].values() if one["Type"] == "AWS::ApiGatewayV2::Route"]
    permitted = {
        name
        for one in template["Resources"].values()
        if one["Type"] == "AWS::Lambda::Permission"
        for name in references(one["Properties"]["FunctionName"])
    }
    for route in routes:
        path = route["Properties"]["RouteKey"]
        integrations = [name for name in references(route["Properties"]["Target"])]
        functions = [name for one in integrations for name in references(template["Resources"][one]["Properties"]["IntegrationUri"])]
        holds(functions and set(functions) <= permitted, f"the API may not call {functions} for {path}")
    return len(routes)


def check_stack(template, parameters):
    # What moto does not know has no name.
    made = boto3.client("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]
    physical = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in made if "PhysicalResourceId" in one}
    lambdas, iam, sqs = (boto3.client(name) for name in ("lambda", "iam", "sqs"))
    roles = {role["Arn"]: role["RoleName"] for role in iam.list_roles()["Roles"]}
    secrets = {one["ARN"] for one in boto3.client("secretsmanager").list_secrets()["SecretList"]}
    queue = sqs.get_queue_attributes(QueueUrl=physical["Events"], AttributeNames=["All"])["Attributes"]
    dead = sqs.get_queue_attributes(QueueUrl=physical["IngestDeadLetterQueue"], AttributeNames=["All"])["Attributes"]
    holds(json.loads(queue["RedrivePolicy"])["deadLetterTargetArn"] == dead["QueueArn"], "what fails does not end in the dead-letter queue")

    functions = [name for name, one in template["Resources"].items() if one["Type"] == "AWS::Lambda::Function"]
    for name in functions:
        configuration = lambdas.get_function(FunctionName=physical[name])["Configuration"]
        holds(configuration["Role"] in roles, f"{name}'s role is not there")
        policies = iam.list_role_policies(RoleName=roles[configuration["Role"]])["PolicyNames"]
        allowed = set()
        for policy in policies:
            document = iam.get_role_policy(RoleName=roles[configuration["Role"]], PolicyName=policy)["PolicyDocument"]
            # moto gives it as Python writes it.
            document = ast.literal_eval(document) if isinstance(document, str) else document
            # It leaves a hole where a template has no value.
            for statement in filter(None, document["Statement"]):
                resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
                holds("*" not in resources and "*" not in statement["Action"], f"{name} may do anything with something")
                if statement["Action"] == "secretsmanager:GetSecretValue":
                    allowed |= set(resources)
        variables = configuration["Environment"]["Variables"]
        for variable, value in variables.items():
            # The API's name is one that moto does not make.
            holds("${" not in value.replace("${Api}", ""), f"{name}'s {variable} is {value}")
        named = {value for variable, value in variables.items() if variable.endswith("_ARN") and value}
        holds(named <= secrets, f"{name} names secrets that are not there: {named - secrets}")
        # `migrate` reads no more than its own, and is given the names of all.
        if name != "Migrate":
            holds(named <= allowed, f"{name} may not read what it names: {named - allowed}")
        bucket = variables.get("UPLOAD_BUCKET")
        holds(bucket in (None, physical["Inbox"]), f"{name} writes to {bucket}, which is another bucket than the inbox")
        in_vpc = bool(configuration.get("VpcConfig", {}).get("SubnetIds"))
        holds(in_vpc == bool(parameters.get("SubnetIds")), f"{name} is {'' if in_vpc else 'not '}in a VPC")

    mappings = lambdas.list_event_source_mappings(FunctionName=physical["IngestEvents"])["EventSourceMappings"]
    holds([one["EventSourceArn"] for one in mappings] == [queue["QueueArn"]], "IngestEvents takes from another queue")
    rules = boto3.client("events")
    targets = [target["Arn"] for rule in rules.list_rules()["Rules"] for target in rules.list_targets_by_rule(Rule=rule["Name"])["Targets"]]
    sweeper = lambdas.get_function(FunctionName=physical["Sweeper"])["Configuration"]["FunctionArn"]
    holds(targets == [sweeper], f"the schedule starts {targets}")
    return len(functions), len(physical)


@mock_aws
def run(name, parameters):
    parameters = parameters()
    template = translated()
    routes = check_references(template)
    check_secrets(template)
    # moto falls over one that asks for an attribute of what it does not know.
    del template["Outputs"]
    # It would wait for the custom resource's answer, and runs no function.
    del template["Resources"]["Schema"]
    for one in template["Resources"].values():
        if one.get("DependsOn") == "Schema":
            del one["DependsOn"]
    boto3.client("cloudformation").create_stack(
        StackName=STACK,
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    holds(stack["StackStatus"] == "CREATE_COMPLETE", f"the stack is {stack['StackStatus']}")
    functions, resources = check_stack(template, parameters)
    print(f"stack: {name}: {resources} of {len(template['Resources'])} resources made, {functions} functions, {routes} routes")


for name, parameters in (("required parameters", required), ("all parameters", everything)):
    run(name, parameters)
if wrong:
    sys.exit("stack: " + "\n  ".join(dict.fromkeys(wrong)))
